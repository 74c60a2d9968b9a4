// Shapes of the stack, its work's division over blocks, and what lies where.
// Defines: LAYERS HIDDEN HEADS KV_HEADS HEAD_DIM INTERMEDIATE ROTARY INTERLEAVED QK_NORM ACT, and of a variant TOKENS STAGES SHARED WINDOW PACE SPLIT
#pragma once
#include "stack_ptx.cuh"

constexpr int WARPS = 8, TEAM = WARPS * 32;          // that compute; one more warp copies weights
constexpr int GROUP = HEADS / KV_HEADS;              // query heads a key/value head
constexpr int QKV_ROWS = (HEADS + 2 * KV_HEADS) * HEAD_DIM, Q_SIZE = HEADS * HEAD_DIM;
constexpr int CHUNK = 1024;                          // columns of a tile of weights
constexpr int TILE_ROWS = 8, TILE_PITCH = 2 * CHUNK + 64;  // bytes; rows 64 bytes apart modulo 128: no bank conflicts
constexpr int TILE_BYTES = TILE_ROWS * TILE_PITCH;
constexpr int BATCH = TOKENS == 1 ? 8 : 4;           // row groups between two sums over warps
constexpr int MOST_SPLITS = 32;                      // of a sequence's cache

// Bytes between rows of activations with K columns in shared memory.
constexpr int pitch(int k) { return 2 * k + ((2 * k) % 128 ? 0 : 64); }
constexpr int at_least(int a, int b) { return a > b ? a : b; }
constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

struct LayerRecord {
    const bf16 *norm, *qkv, *qkv_bias, *q_norm, *k_norm, *out, *out_bias;
    const bf16 *mlp_norm, *gate_up, *gate_up_bias, *down, *down_bias;
    bf16 *k_pages, *v_pages;
};

// The four products of a layer. A unit is what one word of results has: two outputs.
enum Product { QKV, OUT, GATE_UP, DOWN };
constexpr int columns(int p) { return p == OUT ? Q_SIZE : p == DOWN ? INTERMEDIATE : HIDDEN; }
constexpr int units(int p) { return (p == QKV ? QKV_ROWS : p == GATE_UP ? INTERMEDIATE : HIDDEN) / 2; }
constexpr int units_a_tile(int p) { return p == GATE_UP ? 2 : 4; }  // gate and up rows share a tile

// Block b's units of each product: consecutive, as many as the others' or one more. Who has one more differs from
// product to product, so that all blocks read about the same number of bytes in a layer.
struct Share {
    int first[4], count[4];
    DEVICE void set(int p, int all, int& shift) {
        const int blocks = gridDim.x, each = all / blocks, rest = all % blocks;
        int v = blockIdx.x - shift;
        if (v < 0) v += blocks;
        first[p] = v * each + (v < rest ? v : rest);
        count[p] = each + (v < rest);
        shift = (shift + rest) % blocks;
    }
    DEVICE void set() {
        int shift = 0;
        set(QKV, units(QKV), shift);
        set(OUT, units(OUT), shift);
        set(GATE_UP, units(GATE_UP), shift);
        set(DOWN, units(DOWN), shift);
    }
};

// Row of the weight that is row j of tile row group g; -1: none.
template <int P> DEVICE int weight_row(int first, int count, int g, int j) {
    if (P == GATE_UP) {
        const int i = g * 4 + (j & 3);
        return i < 2 * count ? 2 * first + i + (j >> 2) * INTERMEDIATE : -1;
    }
    const int i = g * 8 + j;
    return i < 2 * count ? 2 * first + i : -1;
}

// Words in global memory through which blocks exchange results: 4 bytes of payload, 4 of the tag that says which
// layer of which launch wrote them. Nothing has to be reset, and a word that is there is whole.
#ifndef PACE
#define PACE 0
#endif
constexpr int LAUNCHES = 16;  // words in front: number of the last tag
constexpr int QKV_WORDS = TOKENS * QKV_ROWS / 2;
constexpr int PARTIAL = HEAD_DIM + 2;  // words of a split's result for one head: sums, maximum, weight
constexpr int PARTIAL_WORDS = TOKENS * HEADS * MOST_SPLITS * PARTIAL;
constexpr int ATTENTION_WORDS = TOKENS * Q_SIZE / 2;
constexpr int HIDDEN_WORDS = TOKENS * HIDDEN / 2;
constexpr int ACT_WORDS = TOKENS * INTERMEDIATE / 2;

struct Exchange {
    u64 *launches, *partial, *qkv, *attention, *out, *act, *down;
    DEVICE Exchange(u64* p) {
        launches = p;
        partial = launches + LAUNCHES;
        qkv = partial + PARTIAL_WORDS;
        attention = qkv + QKV_WORDS;
        out = attention + ATTENTION_WORDS;
        act = out + HIDDEN_WORDS;
        down = act + ACT_WORDS;
    }
};

// Shared memory of a block.
constexpr int X_BYTES = TOKENS * at_least(pitch(Q_SIZE), at_least(pitch(HIDDEN), pitch(INTERMEDIATE)));
struct AttentionScratch {
    alignas(16) bf16 q[GROUP][HEAD_DIM], k[HEAD_DIM], v[HEAD_DIM];
    float turning[GROUP + 1][HEAD_DIM];
    float sums[WARPS][GROUP][HEAD_DIM];
    float maximum[WARPS][GROUP], weight[WARPS][GROUP];
};
// A block's part of the attention of every layer: some cached tokens of a sequence, for one key/value head.
struct Part {
    int head, token, split, splits, begin, end;  // end <= begin: no cached tokens
};
// Sums of a row group by each warp's columns; padded against bank conflicts.
struct alignas(16) RowSums {
    float of[WARPS][TOKENS][8], padding[8];
};
struct Shared {
    u64 full[STAGES], empty[STAGES];
    Share share;
    LayerRecord layers[LAYERS];
    RowSums partial[2][BATCH];
    alignas(16) bf16 residual[TOKENS][HIDDEN];
    float cos[TOKENS][ROTARY / 2 + 1], sin[TOKENS][ROTARY / 2 + 1];
    float squares[TOKENS][WARPS];
    i64 slots[TOKENS];
    int lengths[TOKENS], splits[TOKENS];
    Part parts[TOKENS * KV_HEADS];
    int num_parts;
    union alignas(128) {
        char x[X_BYTES];
        AttentionScratch attention;
    };
    alignas(128) char ring[STAGES][TILE_BYTES];
};
