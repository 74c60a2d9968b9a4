// The two halves of a decoder layer, each as one kernel.
#pragma once
#include "attention.h"
#include "rows.h"

struct Linear {
  const void* weight;
  const void* scales;  // of a weight of whole numbers, else null
  const void* bias;
  long out, in;
  template <class T>
  Matrix<T> matrix() const { return {weight, static_cast<const float*>(scales), static_cast<const T*>(bias), out, in}; }
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

// Elements from row to row of n: an odd number of cache lines, so that the rows of a column do not share a few sets.
template <class T>
constexpr long pitch(long n) {
  constexpr long line = 64 / sizeof(T);
  return ((n + line - 1) / line | 1) * line;
}

// x [T, hidden] is read and becomes the output; residual [T, hidden] becomes x + residual. If `is_first`, residual
// holds the layer's input and x only takes the output.
template <class T>
void decoder_attention(const AttentionLayer& a, Step& step, const Pages& pages, T* x, T* residual, bool is_first,
                       const float* cos, const float* sin) {
  static thread_local std::vector<T> buffer;  // of the calling thread
  const Shape& s = a.shape;
  const long tokens = step.tokens, q_size = s.heads * s.k_dim, k_size = s.kv_heads * s.k_dim;
  const long ldh = pitch<T>(a.hidden), ldq = pitch<T>(a.qkv.out), ldo = pitch<T>(s.heads * s.v_dim);
  T* h = room(buffer, tokens * (ldh + ldq + ldo));
  T *qkv = h + tokens * ldh, *o = qkv + tokens * ldq;
  step.next.store(0, std::memory_order_relaxed);
  Team& team = Team::get();
  team.run([&](int rank, int size) {
    const Range mine = share(tokens, rank, size);
    for (long t = mine.begin; t < mine.end; ++t) {
      if (!is_first) add(x + t * a.hidden, residual + t * a.hidden, a.hidden);
      rms_norm(residual + t * a.hidden, h + t * ldh, a.hidden, a.norm);
    }
    team.barrier();
    gemm_shared(h, ldh, tokens, a.qkv.matrix<T>(), qkv, ldq, rank, size);
    team.barrier();
    for (long t = mine.begin; t < mine.end; ++t) {
      T* row = qkv + t * ldq;
      for (long i = 0; i < s.heads + s.kv_heads; ++i) {
        const Norm& norm = i < s.heads ? a.q_norm : a.k_norm;
        T* head = row + i * s.k_dim;
        if (norm.weight) rms_norm(head, head, s.k_dim, norm);
        if (a.rotary_half) rotate(head, cos + t * a.rotary_half, sin + t * a.rotary_half, a.rotary_half, a.interleaved);
      }
    }
    write_pages(qkv + q_size, qkv + q_size + k_size, ldq, ldq, step, s, pages, mine);
    team.barrier();
    attend(qkv, ldq, step, s, pages, static_cast<const T*>(a.sinks), o, ldo, nullptr);
    team.barrier();
    gemm_shared(o, ldo, tokens, a.out.matrix<T>(), x, a.hidden, rank, size);
    if (!a.post_norm.weight) return;
    team.barrier();
    for (long t = mine.begin; t < mine.end; ++t) rms_norm(x + t * a.hidden, x + t * a.hidden, a.hidden, a.post_norm);
  });
}

constexpr long kBlockRows = 512;  // of a long prompt: memory for their activations is bounded, and stays in the caches

// As above.
template <class T>
void gated_mlp(const MlpLayer& a, long tokens, T* x, T* residual, bool is_first) {
  static thread_local std::vector<T> buffer;  // of the calling thread
  const long rows = std::min(tokens, kBlockRows), ldh = pitch<T>(a.hidden), ldi = pitch<T>(2 * a.inner);
  T* h = room(buffer, rows * (ldh + ldi));
  T* inner = h + rows * ldh;
  const auto gate_up = a.gate_up.matrix<T>(), down = a.down.matrix<T>();
  Team& team = Team::get();
  team.run([&](int rank, int size) {
    const Range columns = share(a.inner, rank, size, 16);
    for (long t0 = 0; t0 < tokens; t0 += rows) {
      const long n = std::min(rows, tokens - t0);
      const Range mine = share(n, rank, size);
      T *to = x + t0 * a.hidden, *sum = residual + t0 * a.hidden;
      for (long t = mine.begin; t < mine.end; ++t) {
        if (!is_first) add(to + t * a.hidden, sum + t * a.hidden, a.hidden);
        rms_norm(sum + t * a.hidden, h + t * ldh, a.hidden, a.norm);
      }
      team.barrier();
      if (columns.begin < columns.end) {
        gemm(h, ldh, n, gate_up, columns, inner, ldi);
        gemm(h, ldh, n, gate_up, Range{a.inner + columns.begin, a.inner + columns.end}, inner, ldi);
      }
      for (long t = 0; t < n; ++t) {
        T* row = inner + t * ldi + columns.begin;
        gate(row, row + a.inner, row, columns.end - columns.begin, a.act);
      }
      team.barrier();
      gemm_shared(inner, ldi, n, down, to, a.hidden, rank, size);
      if (a.post_norm.weight || t0 + rows < tokens) team.barrier();
      if (a.post_norm.weight)
        for (long t = mine.begin; t < mine.end; ++t) rms_norm(to + t * a.hidden, to + t * a.hidden, a.hidden, a.post_norm);
    }
  });
}
