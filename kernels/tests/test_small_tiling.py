"""How products of few tokens are cut: plain arithmetic, no GPU."""

import pytest
from vllm_kernels.small_tiling import GPU, Problem, choose, shape_limits

H200 = GPU(multiprocessors=132, most_shared=232448)
RTX3090 = GPU(multiprocessors=82, most_shared=101376)
SHAPES = [(1024, 4096), (2048, 1024), (1024, 3072), (3072, 1024), (4096, 14336), (14336, 4096), (576, 963), (72, 8)]


@pytest.mark.parametrize("gpu", [H200, RTX3090])
@pytest.mark.parametrize("tokens", [8, 16])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize(("in_size", "out_size"), SHAPES)
@pytest.mark.parametrize("scale_bytes", [0, 2, 4])
def test_every_input_and_every_row_has_a_place_and_the_block_fits(in_size, out_size, gate, tokens, scale_bytes, gpu):
    problem = Problem(in_size=in_size, out_size=out_size, gate=gate, scale_bytes=scale_bytes, tokens=tokens)
    cut = choose(problem, gpu)
    if cut is None:
        assert gpu is RTX3090 or not problem.worth, "an H200 holds what is worth it"
        return
    rows = cut.tiles * 8 // (1 + gate)
    units = -(-out_size // rows)

    assert cut.steps * cut.warps * 32 >= in_size
    assert rows <= out_size
    assert cut.grid == min(units, gpu.multiprocessors)
    assert cut.shared(problem.worth) <= gpu.most_shared
    assert cut.steps % cut.span == 0
    if cut.once:
        assert cut.depth == cut.steps * cut.tiles
        assert cut.grid == units
    else:
        assert cut.depth >= 2


def test_the_layers_of_a_small_model_have_all_weights_under_way_at_once_on_an_h200():
    for in_size, out_size, gate in ((1024, 4096, False), (2048, 1024, False), (1024, 3072, True), (3072, 1024, False)):
        cut = choose(Problem(in_size=in_size, out_size=out_size, gate=gate), H200)
        assert cut.once
        assert cut.grid == 128


@pytest.mark.parametrize(
    ("gpu", "kib"), [(H200, 228), (GPU(multiprocessors=108, most_shared=166912), 164), (RTX3090, 100)]
)
def test_no_two_blocks_of_a_head_share_a_multiprocessor_at_any_number_of_tokens(gpu, kib):
    for in_size, out_size in ((1024, 151936), (2048, 128256)):
        cut = choose(Problem(in_size=in_size, out_size=out_size), gpu)
        for tokens in (1, 2, 4, 8):
            taken = cut.shared(tokens) + 1024  # the system's
            assert taken <= kib << 10 < 2 * taken


def test_products_within_layers_leave_room_for_the_next_one():
    cut = choose(Problem(in_size=1024, out_size=3072, gate=True, scale_bytes=2), H200)
    assert 2 * (cut.shared(1) + 1024) <= 228 << 10


def test_a_shape_that_no_block_can_hold_has_no_cut():
    assert choose(Problem(in_size=65536, out_size=4096, scale_bytes=4, tokens=16), H200) is None


@pytest.mark.parametrize(
    ("in_size", "out_size", "dtype", "said"),
    [
        (4096, 128256, "bfloat16", "weights of 1,002 MiB: beyond 512"),
        (1024, 7, "bfloat16", "outputs 8"),
        (1001, 64, "bfloat16", "multiple of 8"),
        (64, 64, "float32", "float32"),
    ],
)
def test_limits_say_what_is_wrong_with_a_shape(in_size, out_size, dtype, said):
    assert said in shape_limits(in_size, out_size, dtype)


def test_long_rows_are_left_to_torch_from_fewer_tokens_on():
    def worth(in_size, norm):
        return Problem(in_size=in_size, out_size=4096, scale_bytes=2 if norm else 0, tokens=16).worth

    assert [worth(1024, True), worth(4096, True), worth(2048, False), worth(14336, False)] == [16, 4, 16, 3]
