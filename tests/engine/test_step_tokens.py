"""How many tokens a step may have."""

import pytest

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.choices import choose_step_tokens


def test_the_platforms_choice_grows_to_a_token_and_drafts_of_every_row():
    assert choose_step_tokens(EngineSettings(max_num_seqs=8), 64, 0) == 64
    assert choose_step_tokens(EngineSettings(max_num_seqs=100), 64, 0) == 100
    assert choose_step_tokens(EngineSettings(max_num_seqs=100), 64, 3) == 400


def test_the_users_choice_is_taken_as_it_is():
    assert choose_step_tokens(EngineSettings(max_num_seqs=100, max_num_batched_tokens=5), 64, 4) == 5


def test_a_budget_that_leaves_no_room_for_drafts_is_refused_with_what_would_start():
    with pytest.raises(ValueError, match="no step has room for a token and its 4 drafts") as error:
        choose_step_tokens(EngineSettings(max_num_batched_tokens=3), 64, 4)
    assert "--max-num-batched-tokens 5\n    num_speculative_tokens 2" in str(error.value)
    assert choose_step_tokens(EngineSettings(max_num_batched_tokens=5), 64, 4) == 5
    assert choose_step_tokens(EngineSettings(max_num_batched_tokens=3), 64, 2) == 3
