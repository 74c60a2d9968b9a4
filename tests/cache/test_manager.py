"""The manager's calls on full attention; each other kind has its own file."""

import pytest

from vllm_core.engine.cache import CacheManager
from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache

SPEC = FullAttentionCache(num_kv_heads=1, k_dim=4, v_dim=4, dtype="float32")
PLAN = CachePlan(groups=(CacheGroup(index=0, spec=SPEC, names=("a",), block_size=4),), page_bytes=128, num_tensors=1)


def make(num_pages=20, **settings):
    return CacheManager(PLAN, num_pages, max_model_len=64, **settings)


def run(manager, step, name, num_computed):
    """A step alone, from launch to what the host learns of it."""
    manager.take_copies()
    manager.launched(step, [name])
    manager.retired(step)
    manager.advance(name, num_computed)


def test_a_table_grows_only_when_a_block_is_full():
    manager = make()
    manager.open("a", list(range(6)))
    assert manager.admit("a", budget=6).pages == [[1, 2]]
    assert manager.reserve("a", 8) == []
    assert manager.reserve("a", 9) == [(0, 2, [3])]
    assert manager.reserve("a", 17) == [(0, 3, [4, 5])]


def test_what_does_not_fit_takes_nothing():
    manager = make(num_pages=4)
    manager.open("a", list(range(6)))
    manager.admit("a", budget=6)
    assert not manager.can_reserve("a", 13)
    assert manager.reserve("a", 13) is None
    assert manager.num_free == 1
    manager.open("b", list(range(10, 20)))
    assert manager.admit("b", budget=8) is None
    assert manager.num_free == 1
    manager.check()


def test_a_later_prompt_reuses_full_blocks_once_the_host_knows_them():
    manager = make()
    prompt = list(range(10))
    manager.open("a", prompt.copy())
    manager.admit("a", budget=10)
    manager.launched(0, ["a"])
    manager.open("early", prompt.copy())
    assert manager.admit("early").num_computed == 0

    manager.retired(0)
    manager.sequences["a"].tokens.append(7)
    manager.advance("a", 10)
    manager.open("late", prompt.copy())
    late = manager.admit("late", budget=10)
    assert late.num_computed == 8
    assert late.pages[0][:2] == [1, 2]
    assert (manager.stats().hits, manager.stats().queries) == (8, 27)
    manager.check()


def test_at_least_one_token_is_computed_even_if_all_are_cached():
    manager = make()
    manager.open("a", list(range(9)))
    manager.admit("a", budget=9)
    run(manager, 0, "a", 8)
    manager.open("b", list(range(8)))
    assert manager.admit("b").num_computed == 4


@pytest.mark.parametrize("settings", [{"prefix_caching": False}, {}])
def test_prefixes_are_not_shared_where_that_is_switched_off(settings):
    manager = make(**settings)
    for name in "ab":
        manager.open(name, list(range(9)), share_prefix=name == "a")
        assert manager.admit(name, budget=9).num_computed == 0
        run(manager, ord(name), name, 9)
    manager.open("c", list(range(9)), share_prefix=False)
    assert manager.admit("c").num_computed == 0


def test_sequences_of_another_salt_find_nothing():
    manager = make()
    manager.open("a", list(range(9)), salt=b"1")
    manager.admit("a", budget=9)
    run(manager, 0, "a", 9)
    manager.open("b", list(range(9)), salt=b"2")
    assert manager.admit("b").num_computed == 0


def test_pages_of_a_closed_sequence_wait_for_its_last_step():
    manager = make()
    manager.open("a", list(range(6)))
    manager.admit("a", budget=6)
    manager.launched(0, ["a"])
    manager.launched(1, ["a"])
    manager.retired(0)
    manager.close("a")
    assert (manager.num_free, manager.num_waiting) == (17, 2)
    manager.retired(1)
    assert (manager.num_free, manager.num_waiting) == (19, 0)


def test_a_preempted_sequence_finds_its_own_blocks_again():
    manager = make()
    manager.open("a", list(range(10)))
    manager.admit("a", budget=10)
    run(manager, 0, "a", 10)
    manager.release("a")
    assert manager.num_free == 19
    again = manager.admit("a", budget=10)
    assert again.num_computed == 8
    assert again.pages[0][:2] == [1, 2]


def test_the_end_of_a_prefix_is_evicted_before_its_beginning():
    manager = make(num_pages=5)
    manager.open("a", [*range(12), 0])
    manager.admit("a", budget=12)
    run(manager, 0, "a", 12)
    manager.close("a")
    manager.open("b", [9] * 8)
    manager.admit("b", budget=8)
    assert manager.stats().evictions == 1
    manager.close("b")
    manager.open("c", [*range(12), 0])
    assert manager.admit("c").num_computed == 8


def test_a_fork_shares_full_blocks_and_copies_the_partial_one():
    manager = make()
    manager.open("parent", list(range(10)))
    manager.admit("parent", budget=10)
    run(manager, 0, "parent", 9)
    child = manager.fork("parent", "child", list(range(10)), budget=1)
    assert child.num_computed == 9
    assert child.pages == [[1, 2, 4]]
    (copy,) = manager.take_copies()
    assert (copy.source, copy.target) == (3, 4)
    manager.check()


def test_a_waiting_sequence_shares_what_a_running_one_has_computed_of_the_same_tokens():
    manager = make(prefix_caching=False)
    manager.open("parent", [*range(10), 50, 51])
    manager.admit("parent", budget=12)
    run(manager, 0, "parent", 12)
    manager.open("child", [*range(10), 70, 71])
    child = manager.admit("child", 2, parent_id="parent", shared=10)
    assert (child.num_computed, child.pages) == (10, [[1, 2, 4]])
    assert [(copy.source, copy.target) for copy in manager.take_copies()] == [(3, 4)]
    manager.check()


def test_a_cached_prefix_that_is_longer_than_what_can_be_shared_is_taken_instead():
    manager = make()
    manager.open("before", [*range(10), *range(70, 80)])
    manager.admit("before", budget=20)
    run(manager, 0, "before", 20)
    manager.close("before")
    manager.open("parent", [*range(10), 50, 51])
    manager.admit("parent", budget=12)
    manager.open("child", [*range(10), *range(70, 80)])
    assert manager.admit("child", 2, parent_id="parent", shared=10).num_computed == 16
    manager.check()


def test_nothing_that_stands_on_forgotten_prefixes_is_found_again():
    manager = make()
    manager.open("parent", list(range(10)))
    manager.admit("parent", budget=10)
    run(manager, 0, "parent", 10)
    manager.reset_prefix_cache()
    child = list(range(10))
    manager.open("child", child)
    assert manager.admit("child", 10, parent_id="parent", shared=10).num_computed == 9
    manager.take_copies()
    child += range(90, 96)
    manager.reserve("child", 16)
    run(manager, 1, "child", 16)
    assert not manager.pool.names
    manager.release("child")
    assert manager.admit("child", 16).num_computed == 0
    run(manager, 2, "child", 16)
    assert len(manager.pool.names) == 4


def test_the_source_of_a_copy_stays_until_the_step_that_copies_has_retired():
    manager = make()
    manager.open("parent", list(range(10)))
    manager.admit("parent", budget=10)
    run(manager, 0, "parent", 9)
    manager.fork("parent", "child", list(range(10)))
    manager.close("parent")
    assert manager.pool.owners[3] == 1
    manager.take_copies()
    manager.launched(1, [])
    assert manager.pool.owners[3] == 1
    manager.retired(1)
    assert manager.pool.owners[3] == 0


def test_the_target_of_a_copy_stays_until_that_step_has_retired_even_without_its_sequence():
    manager = make()
    manager.open("parent", list(range(10)))
    manager.admit("parent", budget=10)
    run(manager, 0, "parent", 9)
    manager.fork("parent", "child", list(range(10)))
    manager.take_copies()
    manager.launched(1, [])
    manager.close("child")
    assert manager.pool.owners[4] == 1
    manager.retired(1)
    assert manager.pool.owners[4] == 0


def test_a_step_without_the_copies_it_needs_is_refused():
    manager = make()
    manager.open("parent", list(range(10)))
    manager.admit("parent", budget=10)
    run(manager, 0, "parent", 9)
    manager.fork("parent", "child", list(range(10)))
    with pytest.raises(RuntimeError, match="without 1 page copies"):
        manager.launched(1, ["child"])


def test_rolling_back_leaves_shared_entries_alone():
    manager = make()
    tokens = list(range(10))
    manager.open("a", tokens)
    manager.admit("a", budget=10)
    run(manager, 0, "a", 10)
    manager.open("b", list(range(10)))
    assert manager.admit("b").pages == [[1, 2]]
    tokens[6:] = [77]
    back = manager.rollback("a", 6, budget=1)
    assert back.num_computed == 6
    assert back.pages == [[1, 3]]
    assert [(copy.source, copy.target) for copy in manager.take_copies()] == [(2, 3)]
    assert manager.sequences["b"].tables[0].pages == [1, 2]
    manager.check()


def test_trimming_gives_back_what_was_reserved_in_vain():
    manager = make()
    manager.open("a", list(range(6)))
    manager.admit("a", budget=6)
    manager.reserve("a", 20)
    assert manager.num_free == 14
    manager.trim("a", 7)
    assert manager.num_free == 17
    assert manager.reserve("a", 9) == [(0, 2, [3])]


def test_after_a_reset_nothing_is_found_and_running_sequences_leave_nothing():
    manager = make()
    manager.open("a", list(range(20)))
    manager.admit("a", budget=9)
    run(manager, 0, "a", 9)
    manager.reset_prefix_cache()
    manager.reserve("a", 20)
    run(manager, 1, "a", 19)
    manager.open("b", list(range(20)))
    assert manager.admit("b").num_computed == 0
    manager.check()


def test_wrong_calls_say_what_is_wrong():
    manager = make()
    manager.open("a", list(range(6)))
    with pytest.raises(ValueError, match="'a' is open already"):
        manager.open("a", [1])
    with pytest.raises(ValueError, match="'a' has no pages: admit"):
        manager.reserve("a", 3)
    manager.admit("a", budget=6)
    with pytest.raises(ValueError, match="'a' was admitted already"):
        manager.admit("a")
    with pytest.raises(ValueError, match="'a' cannot have 7 computed tokens"):
        manager.advance("a", 7)
    with pytest.raises(ValueError, match="65 tokens do not fit into a block table for 64"):
        manager.reserve("a", 65)
    with pytest.raises(ValueError, match="cannot go back to 3"):
        manager.rollback("a", 3)
    manager.close("a")
    with pytest.raises(KeyError, match="'a' is not open"):
        manager.advance("a", 6)


def test_drafts_may_stand_beyond_the_longest_sequence():
    manager = make(num_drafts=3)
    manager.open("a", list(range(6)))
    manager.admit("a", budget=6)
    assert manager.reserve("a", 67) is not None


def test_a_model_without_caches_needs_no_pages():
    manager = CacheManager(CachePlan(groups=(), page_bytes=0, num_tensors=0), 2, max_model_len=64)
    manager.open("a", list(range(6)))
    assert manager.admit("a", budget=6).pages == []
    run(manager, 0, "a", 6)
    manager.close("a")
    manager.check()
