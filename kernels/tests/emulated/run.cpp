// The stack of layers as a function of the CPU; its arguments are the kernel's, strides in one array.
#include "stack.cu"

extern "C" int run_stack(int blocks, int seed, const LayerRecord* layers, const bf16* x, const bf16* residual, bf16* out,
                         bf16* total, const i64* positions, const float* cos, const float* sin, const int* lengths,
                         const i64* slots, const int* table, u64* words, int tokens, int width, int block_bits,
                         const i64* strides, float eps, float qk_eps, float mlp_eps, float scale) {
    return emulated::run(blocks, TEAM + 32, seed, [=] {
        stack(layers, x, residual, out, total, positions, cos, sin, lengths, slots, table, words, tokens, width,
              block_bits, strides[0], strides[1], strides[2], strides[3], strides[4], strides[5], eps, qk_eps, mlp_eps,
              scale);
    });
}
