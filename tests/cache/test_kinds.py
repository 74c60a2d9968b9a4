"""Sliding windows, latents, recurrent states and cross-attention, alone and beside full attention."""

from vllm_core.engine.cache import CacheManager, table_widths
from vllm_core.interfaces.cache import (
    CacheGroup,
    CachePlan,
    CrossAttentionCache,
    FullAttentionCache,
    LatentCache,
    RecurrentCache,
    SlidingWindowCache,
)

HEAD = {"num_kv_heads": 1, "k_dim": 4, "v_dim": 4, "dtype": "float32"}
FULL = FullAttentionCache(**HEAD)
WINDOW = SlidingWindowCache(window=6, **HEAD)
LATENT = LatentCache(latent_dim=6, rope_dim=2, dtype="float32")
STATE = RecurrentCache(shapes=((4, 8),), dtypes=("float32",))
CROSS = CrossAttentionCache(**HEAD)


def make(*groups, num_pages=40, **settings):
    plan = CachePlan(
        groups=tuple(
            CacheGroup(index=i, spec=spec, names=(f"layer.{i}",), block_size=size)
            for i, (spec, size) in enumerate(groups)
        ),
        page_bytes=128,
        num_tensors=1,
    )
    return CacheManager(plan, num_pages, max_model_len=64, **settings)


def start(manager, name, tokens, **settings):
    manager.open(name, list(tokens), **settings)
    return manager.admit(name, budget=len(tokens))


def run(manager, step, name, num_computed):
    manager.take_copies()
    manager.launched(step, [name])
    manager.retired(step)
    manager.advance(name, num_computed)


# ---- sliding windows


def test_blocks_behind_the_window_are_freed_while_the_sequence_runs():
    manager = make((WINDOW, 4))
    start(manager, "a", range(20))
    assert manager.num_free == 34
    run(manager, 0, "a", 16)  # the next query reads positions 11 to 16
    assert manager.num_free == 36
    assert manager.sequences["a"].tables[0].pages[:3] == [0, 0, 3]
    assert manager.reserve("a", 20) == [(0, 0, [0, 0])]
    assert manager.reserve("a", 20) == []
    manager.check()


def test_blocks_behind_the_window_wait_for_the_step_in_flight():
    manager = make((WINDOW, 4))
    start(manager, "a", range(20))
    manager.launched(0, ["a"])
    manager.launched(1, ["a"])
    manager.retired(0)
    manager.advance("a", 16)
    assert (manager.num_free, manager.num_waiting) == (34, 2)
    manager.retired(1)
    assert (manager.num_free, manager.num_waiting) == (36, 0)


def test_a_window_needs_only_its_last_blocks_for_a_hit():
    manager = make((WINDOW, 4), num_pages=8)
    start(manager, "a", range(20))
    run(manager, 0, "a", 16)
    manager.close("a")
    start(manager, "b", [9] * 20)
    manager.close("b")
    assert manager.stats().evictions == 2  # the blocks that were given up first
    late = start(manager, "c", range(20))
    assert late.num_computed == 16
    assert late.pages[0][:4] == [0, 0, 3, 4]


def test_a_hit_is_the_longest_length_that_suits_every_group():
    manager = make((FULL, 4), (WINDOW, 8))
    start(manager, "a", range(21))
    run(manager, 0, "a", 20)
    late = start(manager, "b", range(21))
    assert late.num_computed == 16
    full, window = late.pages
    assert full[:4] == manager.sequences["a"].tables[0].pages[:4]
    assert window[0] == 0
    assert window[1] == manager.sequences["a"].tables[1].pages[1]
    manager.check()


def test_the_window_counts_the_query_itself():
    manager = make((SlidingWindowCache(window=1, **HEAD), 4))
    start(manager, "a", range(10))
    run(manager, 0, "a", 8)
    assert manager.sequences["a"].tables[0].pages[:2] == [0, 0]
    assert start(manager, "b", range(10)).pages[0][:2] == [0, 0]


def test_a_window_never_owns_more_pages_than_it_was_said_to_need():
    manager = make((WINDOW, 4))
    tokens = list(range(60))
    manager.open("a", tokens)
    manager.admit("a")
    most = manager.most_pages(60, 2 * 3)
    computed = 0
    for step in range(19):
        assert manager.reserve("a", computed + 6) is not None  # one step in flight, one planned
        assert 39 - manager.num_free <= most
        computed += 3
        run(manager, step, "a", computed)
    assert most < manager.groups.all[0].blocks(60)


# ---- latents


def test_latents_grow_and_are_found_like_full_attention():
    manager = make((LATENT, 4))
    assert start(manager, "a", range(10)).pages == [[1, 2, 3]]
    run(manager, 0, "a", 9)
    assert start(manager, "b", range(10)).num_computed == 8


# ---- recurrent states


def test_a_state_is_one_page_and_each_draft_one_more():
    for drafts in (0, 1, 3):
        manager = make((STATE, 16), num_drafts=drafts, prefix_caching=False)
        start(manager, "a", range(60))
        assert manager.num_free == 39 - 1 - drafts
        assert manager.reserve("a", 60 + drafts) == []


def test_checkpoints_cost_a_running_sequence_nothing_once_they_are_passed():
    manager = make((STATE, 8))
    assert start(manager, "a", range(20)).pages == [[1, 2, 3]]
    run(manager, 0, "a", 19)
    assert manager.sequences["a"].tables[0].pages == [1, 0, 0]
    assert manager.num_free == 38
    assert manager.reserve("a", 21) == [(0, 1, [0, 0])]


def test_a_hit_copies_the_checkpoint_into_the_ring():
    manager = make((STATE, 8), num_drafts=2)
    first = start(manager, "a", range(20))
    assert len(first.pages[0]) == 3 + 2
    run(manager, 0, "a", 19)
    late = start(manager, "b", range(20))
    assert late.num_computed == 16
    (copy,) = manager.take_copies()
    assert copy.source == first.pages[0][3 + 1]  # the state after 16 tokens
    assert copy.target == late.pages[0][16 % 3]
    manager.check()


def test_a_hit_needs_a_checkpoint_at_its_very_length():
    manager = make((FULL, 4), (STATE, 8))
    start(manager, "a", range(16))
    run(manager, 0, "a", 15)
    assert start(manager, "b", range(16)).num_computed == 8


def test_checkpoints_are_left_out_rather_than_preempt_anybody():
    manager = make((FULL, 4), (STATE, 8), num_pages=8)
    late = start(manager, "a", range(20))
    assert late is not None
    full, state = late.pages
    assert len(full) == 5
    assert state[1] == 0  # the earlier checkpoint had to give way to the later one
    assert state[2] != 0
    run(manager, 0, "a", 20)
    manager.close("a")
    assert start(manager, "b", range(20)).num_computed == 16


def test_a_state_in_flight_cannot_be_forked_but_a_checkpoint_can():
    manager = make((STATE, 4))
    start(manager, "a", range(7))
    run(manager, 0, "a", 6)
    assert manager.fork("a", "now", list(range(7))).num_computed == 6
    manager.take_copies()
    manager.launched(1, ["a"])
    assert manager.fork("a", "meanwhile", list(range(7))).num_computed == 4
    manager.check()


# ---- cross-attention


def test_the_encoders_pages_are_taken_at_once_and_never_grow():
    manager = make((FULL, 4), (CROSS, 4))
    first = start(manager, "a", range(3), encoder_tokens=10, encoder_key=b"sound")
    assert [len(table) for table in first.pages] == [1, 3]
    assert not first.encoder_cached
    assert manager.reserve("a", 9) == [(0, 1, [5, 6])]


def test_the_same_media_are_encoded_once():
    manager = make((FULL, 4), (CROSS, 4))
    first = start(manager, "a", range(3), encoder_tokens=10, encoder_key=b"sound")
    assert not start(manager, "early", range(3), encoder_tokens=10, encoder_key=b"sound").encoder_cached
    run(manager, 0, "a", 3)
    late = start(manager, "late", [7, 8, 9], encoder_tokens=10, encoder_key=b"sound")
    assert late.encoder_cached
    assert late.pages[1] == first.pages[1]
    assert not start(manager, "other", range(3), encoder_tokens=10, encoder_key=b"noise").encoder_cached
    salted = start(manager, "salted", range(3), encoder_tokens=10, encoder_key=b"sound", salt=b"x")
    assert not salted.encoder_cached
    manager.check()


def test_a_decoders_prefix_is_shared_only_with_the_same_media():
    manager = make((FULL, 4), (CROSS, 4))
    start(manager, "a", range(9), encoder_tokens=10, encoder_key=b"sound")
    run(manager, 0, "a", 9)
    assert start(manager, "b", range(9), encoder_tokens=10, encoder_key=b"noise").num_computed == 0
    assert start(manager, "c", range(9), encoder_tokens=10, encoder_key=b"sound").num_computed == 8


def test_media_without_a_key_are_shared_with_nobody():
    manager = make((FULL, 4), (CROSS, 4))
    for name in "ab":
        admission = start(manager, name, range(9), encoder_tokens=10)
        assert admission.num_computed == 0
        assert not admission.encoder_cached
        run(manager, ord(name), name, 9)


# ---- all


def test_the_widths_of_tables_hold_the_longest_sequence_and_its_drafts():
    manager = make((FULL, 4), (WINDOW, 8), (STATE, 16), (CROSS, 4), num_drafts=2, num_pages=60)
    first = start(manager, "a", range(64), encoder_tokens=12, encoder_key=b"sound")
    tables = [list(table) for table in first.pages]
    for group, at, pages in manager.reserve("a", 66):
        tables[group][at:] = pages
    plan = CachePlan(
        groups=tuple(
            CacheGroup(index=i, spec=spec, names=("x",), block_size=size)
            for i, (spec, size) in enumerate([(FULL, 4), (WINDOW, 8), (STATE, 16), (CROSS, 4)])
        ),
        page_bytes=128,
        num_tensors=1,
    )
    assert [len(table) for table in tables] == table_widths(plan, max_model_len=64, num_drafts=2, max_encoder_tokens=12)
