// The two halves of a decoder layer, each as one kernel.
#pragma once
#include "attention.h"
#include "rows.h"

struct Linear {
  const void* weight;
  const void* bias;
  long out, in;
  template <class T>
  Matrix<T> matrix() const { return {static_cast<const T*>(weight), static_cast<const T*>(bias), out, in}; }
};

struct AttentionLayer {
  long hidden;
  Norm norm, q_norm, k_norm, post_norm;
  Linear qkv, out;
  Shape shape;
  long rotary_half;  // pairs a head turns; 0: none
  int interleaved;
  const void* sinks;
};

struct MlpLayer {
  long hidden, inner;
  Norm norm, post_norm;
  Linear gate_up, down;
  int act;
};

// Memory of a kernel's intermediate results, kept from call to call.
template <class T>
T* room(std::vector<T>& buffer, size_t n) {
  if (buffer.size() < n) buffer.resize(n);
  return buffer.data();
}

// x [T, hidden] is read and becomes the output; residual [T, hidden] becomes x + residual. If `first`, residual holds
// the layer's input and x only takes the output.
template <class T>
void decoder_attention(const AttentionLayer& a, Step& step, const Pages& pages, T* x, T* residual, bool is_first,
                       const float* cos, const float* sin) {
  static thread_local std::vector<T> buffer;  // of the calling thread
  const Shape& s = a.shape;
  const long tokens = step.tokens, q_size = s.heads * s.k_dim, k_size = s.kv_heads * s.k_dim;
  const long wide = a.qkv.out, narrow_ = s.heads * s.v_dim;
  T* h = room(buffer, tokens * (a.hidden + wide + narrow_));
  T *qkv = h + tokens * a.hidden, *o = qkv + tokens * wide;
  step.next.store(0, std::memory_order_relaxed);
  Team& team = Team::get();
  team.run([&](int rank, int size) {
    // Many tokens: a thread owns its rows up to attention. Few: it owns columns of the products.
    const bool by_rows = tokens >= kManyRows;
    const Range mine = share(tokens, rank, size, by_rows ? 4 : 1);
    for (long t = mine.begin; t < mine.end; ++t) {
      if (!is_first) add(x + t * a.hidden, residual + t * a.hidden, a.hidden);
      rms_norm(residual + t * a.hidden, h + t * a.hidden, a.hidden, a.norm);
    }
    if (!by_rows) team.barrier();
    gemm_shared(h, a.hidden, tokens, a.qkv.matrix<T>(), qkv, wide, rank, size);
    if (!by_rows) team.barrier();
    for (long t = mine.begin; t < mine.end; ++t) {
      T* row = qkv + t * wide;
      for (long i = 0; i < s.heads + s.kv_heads; ++i) {
        const Norm& norm = i < s.heads ? a.q_norm : a.k_norm;
        T* head = row + i * s.k_dim;
        if (norm.weight) rms_norm(head, head, s.k_dim, norm);
        if (a.rotary_half) rotate(head, cos + t * a.rotary_half, sin + t * a.rotary_half, a.rotary_half, a.interleaved);
      }
    }
    write_pages(qkv + q_size, qkv + q_size + k_size, wide, wide, step, s, pages, mine);
    team.barrier();
    attend(qkv, wide, step, s, pages, static_cast<const T*>(a.sinks), o, narrow_, nullptr);
    team.barrier();
    gemm_shared(o, narrow_, tokens, a.out.matrix<T>(), x, a.hidden, rank, size);
    if (!a.post_norm.weight) return;
    if (!by_rows) team.barrier();
    for (long t = mine.begin; t < mine.end; ++t) rms_norm(x + t * a.hidden, x + t * a.hidden, a.hidden, a.post_norm);
  });
}

constexpr long kBlockRows = 192;  // of a long prompt: their activations stay in the second and third cache

// As above.
template <class T>
void gated_mlp(const MlpLayer& a, long tokens, T* x, T* residual, bool is_first) {
  static thread_local std::vector<T> buffer;  // of the calling thread
  Team& team = Team::get();
  const bool by_rows = tokens >= kManyRows;
  const long rows = by_rows ? kBlockRows : tokens, width = a.hidden + 2 * a.inner;
  T* all = room(buffer, (by_rows ? team.size() : 1) * rows * width);
  const auto gate_up = a.gate_up.matrix<T>(), down = a.down.matrix<T>();
  team.run([&](int rank, int size) {
    T* h = all + (by_rows ? rank * rows * width : 0);
    T* inner = h + rows * a.hidden;
    const Range mine = share(tokens, rank, size, by_rows ? 4 : 1);
    const auto norm_rows = [&](Range r, T* to) {
      for (long t = r.begin; t < r.end; ++t, to += a.hidden) {
        if (!is_first) add(x + t * a.hidden, residual + t * a.hidden, a.hidden);
        rms_norm(residual + t * a.hidden, to, a.hidden, a.norm);
      }
    };
    const auto norm_output = [&](Range r) {
      if (a.post_norm.weight)
        for (long t = r.begin; t < r.end; ++t) rms_norm(x + t * a.hidden, x + t * a.hidden, a.hidden, a.post_norm);
    };
    if (by_rows) {
      for (long t = mine.begin; t < mine.end; t += rows) {
        const Range block{t, std::min(t + rows, mine.end)};
        const long n = block.end - block.begin;
        norm_rows(block, h);
        gemm(h, a.hidden, n, gate_up, Range{0, gate_up.n}, inner, 2 * a.inner);
        for (long i = 0; i < n; ++i) {
          T* row = inner + i * 2 * a.inner;
          gate(row, row + a.inner, row, a.inner, a.act);
        }
        gemm(inner, 2 * a.inner, n, down, Range{0, down.n}, x + t * a.hidden, a.hidden);
        norm_output(block);
      }
      return;
    }
    norm_rows(mine, h + mine.begin * a.hidden);
    team.barrier();
    const Range columns = share(a.inner, rank, size, 16);
    if (columns.begin < columns.end) {
      gemm(h, a.hidden, tokens, gate_up, columns, inner, 2 * a.inner);
      gemm(h, a.hidden, tokens, gate_up, Range{a.inner + columns.begin, a.inner + columns.end}, inner, 2 * a.inner);
    }
    for (long t = 0; t < tokens; ++t) {
      T* row = inner + t * 2 * a.inner + columns.begin;
      gate(row, row + a.inner, row, columns.end - columns.begin, a.act);
    }
    team.barrier();
    gemm_shared(inner, 2 * a.inner, tokens, down, x, a.hidden, rank, size);
    if (a.post_norm.weight) team.barrier();
    norm_output(mine);
  });
}
