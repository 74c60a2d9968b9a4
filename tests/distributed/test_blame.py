"""Of several ranks that fail, the one that is the cause is named: rank, place in the layout, host, device, process."""

import os

from vllm_core.distributed.blame import Place, Report, blame
from vllm_core.distributed.layout import Layout

LAYOUT = Layout(tp=2, pp=2)
PID = os.getpid()
PLACES = {rank: Place("host7", "cuda", PID) for rank in range(4)}
WAITED = Report("another rank did not take part: timed out", "PeerLost", waited=True, step=12)


def blamed(reports):
    return blame(LAYOUT, reports, PLACES)


def test_a_process_that_was_killed_comes_before_all_who_noticed():
    said = blamed({0: WAITED, 1: WAITED, 2: WAITED, 3: Report(ended="was killed by SIGKILL")})
    assert said == f"rank 3 (tp 1, pp 1) on host7, cuda (pid {PID}) was killed by SIGKILL"


def test_an_error_of_a_ranks_own_comes_before_those_who_waited_for_it():
    said = blamed({0: WAITED, 2: Report("CUDA out of memory", "OutOfMemoryError", step=12)})
    assert said == f"rank 2 (tp 0, pp 1) on host7, cuda (pid {PID}) in step 12: OutOfMemoryError: CUDA out of memory"


def test_where_all_who_speak_have_waited_those_who_are_silent_hang():
    said = blamed({0: WAITED, 1: WAITED, 3: WAITED})
    assert said.startswith("rank 2 (tp 0, pp 1) on host7, cuda")
    assert "hangs: rank 0 (tp 0, pp 0) waited for it in vain in step 12" in said


def test_where_all_waited_the_first_says_so():
    said = blamed(dict.fromkeys(range(4), WAITED))
    assert (
        said == f"rank 0 (tp 0, pp 0) on host7, cuda (pid {PID}) in step 12: another rank did not take part: timed out"
    )
