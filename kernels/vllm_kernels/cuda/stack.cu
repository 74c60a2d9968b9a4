// All decoder layers of a dense model for one step of a few sequences with a token each, in one launch.
//
// Every SM has one block. A layer is four products with attention after the first; between them all blocks exchange
// results through tagged words (stack_exchange.cuh), so nothing but data is waited for. Weights stream into shared
// memory on their own (stack_product.cuh). After the "no bubbles" kernels of Hazy Research, with other means.
#include "stack_heads.cuh"
#include "stack_product.cuh"
#include "stack_stage.cuh"

extern __shared__ __align__(128) char memory[];
static_assert(sizeof(Shared) <= SHARED, "the host gives less shared memory than this needs");

// For measuring only: cycles that this block spends up to each place, summed over layers, behind the exchange's words.
#ifdef MARKS
struct Marks {
    u32 spent[10] = {}, last = clock();
    DEVICE void operator()(int place) {
        const u32 now = clock();
        spent[place] += now - last;
        last = now;
    }
    DEVICE void save(u64* to) {
        for (int i = 0; i < 10; ++i) to[blockIdx.x * 10 + i] = spent[i];
    }
};
#else
struct Marks {
    DEVICE void operator()(int) {}
    DEVICE void save(u64*) {}
};
#endif

// A layer's small vectors on their way to the L2 cache, by one block.
DEVICE void expect_vectors(const LayerRecord& layer) {
    const auto expect = [](const bf16* p, int size) {
        for (int i = 64 * threadIdx.x; p && i < size; i += 64 * TEAM) prefetch_l2(p + i);
    };
    expect(layer.norm, HIDDEN);
    expect(layer.q_norm, HEAD_DIM);
    expect(layer.k_norm, HEAD_DIM);
    expect(layer.mlp_norm, HIDDEN);
    expect(layer.qkv_bias, QKV_ROWS);
    expect(layer.out_bias, HIDDEN);
    expect(layer.gate_up_bias, 2 * INTERMEDIATE);
    expect(layer.down_bias, HIDDEN);
}

extern "C" __global__ void __launch_bounds__(TEAM + 32, 1)
    stack(const LayerRecord* layers, const bf16* x, const bf16* residual, bf16* x_out, bf16* residual_out,
          const i64* positions, const float* cos, const float* sin, const int* lengths, const i64* slots,
          const int* table, u64* words, int tokens, int width, int block_bits, i64 k_page, i64 k_token, i64 k_head,
          i64 v_page, i64 v_token, i64 v_head, float eps, float qk_eps, float mlp_eps, float scale) {
    Shared& s = *reinterpret_cast<Shared*>(memory);
    const Exchange ex(words);
    const int thread = threadIdx.x;
    if (thread == 0) {
        for (int i = 0; i < STAGES; ++i) {
            barrier_init(&s.full[i], 1);
            barrier_init(&s.empty[i], WARPS);
        }
        barriers_ready();
        s.share.set();
    }
    __syncthreads();

    if (thread >= TEAM) {  // the warp that copies
        const u64 policy = streaming_policy();
        Turn turn;
        Speed speed;
        for (int l = 0; l < LAYERS; ++l) {
            copy_weights<QKV>(s, turn, speed, layers[l].qkv, policy);
            copy_weights<OUT>(s, turn, speed, layers[l].out, policy);
            copy_weights<GATE_UP>(s, turn, speed, layers[l].gate_up, policy);
            copy_weights<DOWN>(s, turn, speed, layers[l].down, policy);
        }
        return;
    }

    u32 tag = u32(load_word(ex.launches)) + 1;
    for (int i = thread; i < LAYERS * int(sizeof(LayerRecord) / 8); i += TEAM)
        reinterpret_cast<u64*>(s.layers)[i] = reinterpret_cast<const u64*>(layers)[i];
    for (int t = 0; t < tokens; ++t) {
        for (int i = thread; i < ROTARY / 2; i += TEAM) {
            s.cos[t][i] = cos[positions[t] * (ROTARY / 2) + i];
            s.sin[t][i] = sin[positions[t] * (ROTARY / 2) + i];
        }
        for (int i = thread; i < HIDDEN / 4; i += TEAM) {  // by the threads that stage_norm gives these quads to
            uint2 a = load_quad(x + t * HIDDEN + 4 * i);
            if (residual) {
                const uint2 b = load_quad(residual + t * HIDDEN + 4 * i);
                a = make_uint2(pack(low(a.x) + low(b.x), high(a.x) + high(b.x)),
                               pack(low(a.y) + low(b.y), high(a.y) + high(b.y)));
            }
            *reinterpret_cast<uint2*>(s.residual[t] + 4 * i) = a;
        }
    }
    if (thread < tokens) s.lengths[thread] = lengths[thread], s.slots[thread] = slots[thread];
    team_sync();
    if (thread == 0) set_parts(s, tokens);
    team_sync();

    // 1.4427 = log2(e): exponentials are powers of two.
    const Pages pages{table,       width,       block_bits,  k_page,
                      v_page,      int(k_token), int(k_head), int(v_token),
                      int(v_head), scale * 1.44269504f, qk_eps};
    if (!(ABLATE & 1)) expect_cache(s, s.layers[0], pages);
    Turn turn;
    int flip = 0;
    Marks mark;
    for (int l = 0; l < LAYERS; ++l, ++tag) {
        const LayerRecord& layer = s.layers[l];
        if (l + 1 < LAYERS && blockIdx.x == (l + 1) % gridDim.x) expect_vectors(s.layers[l + 1]);
        stage_norm(s, ex.down, layer.norm, eps, tokens, tag - 1, l > 0, nullptr);
        mark(0);
        product<QKV>(s, turn, tokens, flip, [&](int unit, int t, float2 a, float2) {
            if (layer.qkv_bias) a.x += to_float(layer.qkv_bias[2 * unit]), a.y += to_float(layer.qkv_bias[2 * unit + 1]);
            put(ex.qkv + t * (QKV_ROWS / 2) + unit, pack(a.x, a.y), tag);
        });
        mark(1);
        if (!(ABLATE & 1)) {
            attend(s, ex, layer, pages, tag);
            mark(2);
            join_splits(s, ex, tokens, tag);
        }
        mark(3);
        stage<Q_SIZE>(s, ABLATE & 1 ? ex.qkv : ex.attention, tokens, tag);
        mark(4);
        product<OUT>(s, turn, tokens, flip, [&](int unit, int t, float2 a, float2) {
            if (layer.out_bias) a.x += to_float(layer.out_bias[2 * unit]), a.y += to_float(layer.out_bias[2 * unit + 1]);
            put(ex.out + t * (HIDDEN / 2) + unit, pack(a.x, a.y), tag);
        });
        mark(5);
        if (l + 1 < LAYERS && !(ABLATE & 1)) expect_cache(s, s.layers[l + 1], pages);
        stage_norm(s, ex.out, layer.mlp_norm, mlp_eps, tokens, tag, true,
                   l == LAYERS - 1 && blockIdx.x == 0 ? residual_out : nullptr);
        mark(6);
        product<GATE_UP>(s, turn, tokens, flip, [&](int unit, int t, float2 gate, float2 up) {
            if (const bf16* bias = layer.gate_up_bias) {
                gate.x += to_float(bias[2 * unit]), gate.y += to_float(bias[2 * unit + 1]);
                up.x += to_float(bias[INTERMEDIATE + 2 * unit]), up.y += to_float(bias[INTERMEDIATE + 2 * unit + 1]);
            }
            const float a = rounded<bf16>(activation(rounded<bf16>(gate.x))) * rounded<bf16>(up.x);
            const float b = rounded<bf16>(activation(rounded<bf16>(gate.y))) * rounded<bf16>(up.y);
            put(ex.act + t * (INTERMEDIATE / 2) + unit, pack(a, b), tag);
        });
        mark(7);
        stage<INTERMEDIATE>(s, ex.act, tokens, tag);
        mark(8);
        product<DOWN>(s, turn, tokens, flip, [&](int unit, int t, float2 a, float2) {
            if (layer.down_bias)
                a.x += to_float(layer.down_bias[2 * unit]), a.y += to_float(layer.down_bias[2 * unit + 1]);
            if (l < LAYERS - 1)
                put(ex.down + t * (HIDDEN / 2) + unit, pack(a.x, a.y), tag);
            else
                *reinterpret_cast<u32*>(x_out + t * HIDDEN + 2 * unit) = pack(a.x, a.y);
        });
        mark(9);
    }
    if (thread == 0) mark.save(ex.down + HIDDEN_WORDS);
    // All blocks have read the number when any block comes here: it has their results.
    if (blockIdx.x == 0 && thread == 0) store_word(ex.launches, u64(tag - 1));
}
