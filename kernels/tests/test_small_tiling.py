"""How products of few tokens are cut: plain arithmetic, no GPU."""

import pytest
from vllm_kernels.small_tiling import Problem, choose, shape_limits

H200 = (132, 232448)  # multiprocessors, bytes of shared memory a block
SHAPES = [(1024, 4096), (2048, 1024), (1024, 3072), (3072, 1024), (4096, 14336), (14336, 4096), (576, 963), (72, 8)]


@pytest.mark.parametrize("tokens", [8, 16])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize(("in_size", "out_size"), SHAPES)
def test_every_input_and_every_row_has_a_place_and_the_block_fits(in_size, out_size, gate, tokens):
    cut = choose(Problem(in_size=in_size, out_size=out_size, gate=gate, scale_bytes=2, tokens=tokens), *H200)
    if cut is None:  # staged tokens that fit nowhere
        assert tokens * in_size * 2 > 200_000
        return
    rows = cut.tiles * 8 // (1 + gate)

    assert cut.steps * cut.warps * 32 >= in_size
    assert rows <= out_size
    assert cut.grid <= H200[0]
    assert cut.grid <= -(-out_size // rows)
    assert cut.shared(tokens) <= H200[1]
    assert cut.steps % cut.span == 0
    assert cut.depth >= 2
    assert not cut.once or (cut.depth == cut.steps and cut.grid == -(-out_size // rows))


def test_the_layers_of_a_small_model_have_all_weights_under_way_at_once_on_an_h200():
    for in_size, out_size, gate in ((1024, 4096, False), (2048, 1024, False), (1024, 3072, True), (3072, 1024, False)):
        cut = choose(Problem(in_size=in_size, out_size=out_size, gate=gate), *H200)
        assert cut.once
        assert cut.grid == 128


def test_a_shape_that_no_block_can_hold_has_no_cut():
    assert choose(Problem(in_size=65536, out_size=4096, scale_bytes=2, tokens=16), *H200) is None


@pytest.mark.parametrize(
    ("in_size", "out_size", "dtype", "said"),
    [(1024, 7, "bfloat16", "outputs 8"), (1001, 64, "bfloat16", "multiple of 8"), (64, 64, "float32", "float32")],
)
def test_limits_say_what_is_wrong_with_a_shape(in_size, out_size, dtype, said):
    assert said in shape_limits(in_size, out_size, dtype)
