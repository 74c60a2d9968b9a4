import pytest

from vllm_core.engine.cache import CachePlanError, owner_names, plan_caches
from vllm_core.interfaces.cache import (
    CrossAttentionCache,
    DeclaredCache,
    FullAttentionCache,
    LatentCache,
    RecurrentCache,
    SlidingWindowCache,
)

HEAD = {"num_kv_heads": 8, "k_dim": 128, "v_dim": 128, "dtype": "bfloat16"}  # 4,096 bytes a token
FULL = FullAttentionCache(**HEAD)
WINDOW = SlidingWindowCache(window=1024, **HEAD)
STATE = RecurrentCache(shapes=((3, 8192), (32, 128, 128)), dtypes=("float32", "float32"))


def declare(*specs):
    return [DeclaredCache(name=f"layers.{i}.attention", spec=spec) for i, spec in enumerate(specs)]


def shape(plan):
    return [(group.spec.kind, len(group.names), group.block_size) for group in plan.groups]


def test_equal_caches_make_one_group_of_the_default_size():
    plan = plan_caches(declare(*[FULL] * 30))
    assert shape(plan) == [("full", 30, 16)]
    assert plan.page_bytes == 16 * 4096
    assert plan.bytes_per_page == 30 * plan.page_bytes


def test_ten_full_and_fifty_window_layers_make_six_groups_of_ten_and_waste_nothing():
    plan = plan_caches(declare(*[FULL, WINDOW, WINDOW, WINDOW, WINDOW, WINDOW] * 10))
    assert shape(plan) == [("full", 10, 16)] + [("sliding_window", 10, 16)] * 5
    assert plan.num_tensors == 10


def test_every_cache_is_in_exactly_one_group_and_groups_keep_the_order_of_layers():
    declared = declare(*[FULL, WINDOW, STATE, WINDOW] * 7)
    plan = plan_caches(declared)
    names = [name for group in plan.groups for name in group.names]
    assert sorted(names) == sorted(cache.name for cache in declared)
    for group in plan.groups:
        assert list(group.names) == [cache.name for cache in declared if cache.name in group.names]
    assert [group.index for group in plan.groups] == list(range(len(plan.groups)))


def test_caches_with_fewer_bytes_a_token_hold_more_tokens_a_page():
    half = FullAttentionCache(num_kv_heads=4, k_dim=128, v_dim=128, dtype="bfloat16")
    quarter = FullAttentionCache(num_kv_heads=4, k_dim=128, v_dim=128, dtype="float8_e4m3fn")
    plan = plan_caches(declare(FULL, half, quarter))
    assert shape(plan) == [("full", 1, 16), ("full", 1, 32), ("full", 1, 64)]
    assert {group.block_size * group.spec.bytes_per_token for group in plan.groups} == {plan.page_bytes}


def test_pages_grow_until_they_hold_a_state():
    plan = plan_caches(declare(*[FULL, STATE, STATE, STATE] * 3))
    full, *states = plan.groups
    assert plan.page_bytes >= STATE.bytes_per_state > (full.block_size - 16) * 4096
    assert all(group.block_size % full.block_size == 0 for group in states)


def test_every_page_holds_what_its_group_puts_there():
    latent = LatentCache(latent_dim=512, rope_dim=64, dtype="bfloat16")
    cross = CrossAttentionCache(num_kv_heads=3, k_dim=80, v_dim=64, dtype="float16")
    plan = plan_caches(declare(FULL, WINDOW, latent, cross, STATE, FULL))
    for group in plan.groups:
        if group.spec.kind == "recurrent":
            assert group.spec.bytes_per_state <= plan.page_bytes
        else:
            assert group.block_size * group.spec.bytes_per_token <= plan.page_bytes
    assert plan.page_bytes % 16 == 0


def test_states_alone_need_no_more_than_their_bytes():
    plan = plan_caches(declare(STATE, STATE))
    assert plan.page_bytes == STATE.bytes_per_state
    assert shape(plan) == [("recurrent", 2, 512)]


def test_the_first_size_that_a_backend_names_is_taken():
    assert shape(plan_caches(declare(FULL), None, {"full": (32, 16)})) == [("full", 1, 32)]


def test_a_spec_of_its_own_is_asked_before_its_kind():
    assert shape(plan_caches(declare(FULL), None, {"full": (32,), FULL: (64,)})) == [("full", 1, 64)]


def test_groups_get_sizes_that_each_of_their_backends_takes():
    small = SlidingWindowCache(window=128, num_kv_heads=4, k_dim=128, v_dim=128, dtype="bfloat16")
    plan = plan_caches(declare(FULL, small), None, {"full": (16, 64), "sliding_window": (128,)})
    assert shape(plan) == [("full", 1, 64), ("sliding_window", 1, 128)]


def test_checkpoints_stand_where_the_kernels_can_make_them():
    plan = plan_caches(declare(STATE), None, {"recurrent": (64, 256, 1024)})
    assert shape(plan) == [("recurrent", 1, 1024)]


def test_the_users_block_size_is_taken_or_refused_with_one_that_works():
    assert shape(plan_caches(declare(FULL), 48)) == [("full", 1, 48)]
    with pytest.raises(CachePlanError) as error:
        plan_caches(declare(FULL), 48, {"full": (16, 32)})
    assert "--block-size 48" in str(error.value)
    assert "This works: --block-size 16" in str(error.value)
    assert shape(plan_caches(declare(FULL), 16, {"full": (16, 32)})) == [("full", 1, 16)]


def test_a_block_size_too_small_for_a_state_is_refused_with_one_that_holds_it():
    declared = declare(FULL, STATE)
    with pytest.raises(CachePlanError, match="2,195,456 bytes a state") as error:
        plan_caches(declared, 16)
    suggested = int(str(error.value).split("This works: --block-size ")[1].split(",")[0])
    assert plan_caches(declared, suggested).page_bytes >= STATE.bytes_per_state


def test_backends_that_agree_on_no_page_are_told_which_sizes_would_do():
    small = SlidingWindowCache(window=128, num_kv_heads=4, k_dim=128, v_dim=128, dtype="bfloat16")
    with pytest.raises(CachePlanError, match=r"takes these tokens a page: 16 \(full\), 32 \(sliding_window\)"):
        plan_caches(declare(FULL, small), None, {"full": (16,), "sliding_window": (128,)})


def test_a_shared_cache_owns_nothing():
    declared = [
        *declare(FULL, WINDOW),
        DeclaredCache(name="reader", spec=FULL, shared_with="layers.0.attention"),
        DeclaredCache(name="reader of the reader", spec=FULL, shared_with="reader"),
    ]
    assert owner_names(declared)["reader of the reader"] == "layers.0.attention"
    assert shape(plan_caches(declared)) == shape(plan_caches(declare(FULL, WINDOW)))


def test_a_layer_may_have_several_caches_or_none():
    declared = [DeclaredCache(name="layers.0.self", spec=FULL), DeclaredCache(name="layers.0.cross", spec=WINDOW)]
    assert len(plan_caches(declared).groups) == 2
    assert plan_caches([]).groups == ()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ([DeclaredCache(name="a", spec=FULL)] * 2, "'a' is declared twice"),
        ([DeclaredCache(name="a", spec=FULL, shared_with="b")], "'b', which no layer declares"),
        (
            [DeclaredCache(name="a", spec=FULL), DeclaredCache(name="b", spec=WINDOW, shared_with="a")],
            "'b' cannot share 'a'",
        ),
        (
            [
                DeclaredCache(name="a", spec=FULL, shared_with="b"),
                DeclaredCache(name="b", spec=FULL, shared_with="a"),
            ],
            "nobody owns one",
        ),
    ],
)
def test_wrong_declarations_are_refused_by_name(declared, message):
    with pytest.raises(CachePlanError, match=message):
        plan_caches(declared)
