// Attention over paged keys and values, "NHD": online softmax over chunks of keys, read where they lie.
//
// Chunks are counted from a sequence's first token, so a query's result depends neither on the
// step's other queries nor on how its prompt was cut.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "gemm.h"

// One step of one cache group. Fields as in vllm_core.interfaces.attention.AttentionStep.
struct Step {
  const int32_t* query_starts;  // [sequences + 1]
  const int32_t* kv_lens;       // [sequences]
  const int32_t* block_table;   // [sequences, table_stride]
  const int64_t* slots;         // [tokens]
  const int32_t* items;         // [num_items, 3]: sequence, kv head, first query of the sequence
  long sequences, tokens, table_stride, num_items;
  std::atomic<long> next;  // item to take; the last kernel left it at 0
};

struct Shape {
  long heads, kv_heads, k_dim, v_dim, block_size;
  float scale, soft_cap;  // soft_cap 0: none
  long window;            // 0: none
  int causal;
};

struct Pages {
  void *k, *v;                  // [P, block_size, kv_heads, dim]
  long k_stride, v_stride;      // elements from page to page
};

constexpr long kChunk = 64;      // keys
constexpr long kTileRows = 48;   // (query, head) rows of an item, or the heads of one query if they are more
constexpr long kMostRows = 768;

inline long tile_queries(const Shape& s) { return std::max<long>(1, kTileRows / (s.heads / s.kv_heads)); }

// The number of items; as many as there is room for are written.
inline long list_items(const Step& step, const Shape& s, int32_t* items, long room) {
  long n = 0;
  for (long i = 0; i < step.sequences; ++i) {
    const long queries = step.query_starts[i + 1] - step.query_starts[i];
    for (long q = 0; q < queries; q += tile_queries(s))
      for (long h = 0; h < s.kv_heads; ++h, ++n)
        if (n < room) {
          items[3 * n] = static_cast<int32_t>(i);
          items[3 * n + 1] = static_cast<int32_t>(h);
          items[3 * n + 2] = static_cast<int32_t>(q);
        }
  }
  return n;
}

// k, v: rows of tokens, stride ld elements, into their slots.
template <class T>
void write_pages(const T* k, const T* v, long ldk, long ldv, const Step& step, const Shape& s, const Pages& p, Range t) {
  const long k_row = s.kv_heads * s.k_dim, v_row = s.kv_heads * s.v_dim;
  for (long i = t.begin; i < t.end; ++i) {
    const long page = step.slots[i] / s.block_size, at = step.slots[i] % s.block_size;
    __builtin_memcpy(static_cast<T*>(p.k) + page * p.k_stride + at * k_row, k + i * ldk, k_row * sizeof(T));
    __builtin_memcpy(static_cast<T*>(p.v) + page * p.v_stride + at * v_row, v + i * ldv, v_row * sizeof(T));
  }
}

// What an item's rows have summed up so far.
struct Rows {
  std::vector<float> acc;                // [rows, v_dim rounded up to 16]
  alignas(64) float p[kMostRows][kChunk];  // scores, then weights
  float m[kMostRows], l[kMostRows];      // the largest score, the sum of weights
};

template <class T>
inline void fetch(const T* p, long n) {
  for (long i = 0; i < n; i += 64 / static_cast<long>(sizeof(T))) _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T0);
}

// scores[r][j] = rows[r] . keys[j]
template <class T>
void dot_keys(const T* const* rows, long n_rows, const T* const* keys, long n_keys, long dim, float (*scores)[kChunk]) {
  const T* k[kChunk];
  for (long j = 0; j < kChunk; ++j) k[j] = keys[std::min(j, n_keys - 1)];
  long r = 0;
  for (; r + 4 <= n_rows; r += 4)
    for (long j = 0; j < n_keys; j += 4) {
      alignas(64) float s[16];
      _mm512_store_ps(s, tile<T, T, 4, 4>(rows + r, k + j, dim));
      for (int i = 0; i < 4; ++i) __builtin_memcpy(scores[r + i] + j, s + 4 * i, 16);
    }
  for (; r < n_rows; ++r)
    for (long j = 0; j < n_keys; j += 16) _mm512_storeu_ps(scores[r] + j, tile<T, T, 1, 16>(rows + r, k + j, dim));
}

// acc[r] = acc[r] * keep[r] + sum_j p[r][j] values[j], R rows and V vectors of 16 from `at` on.
template <class T, int R, int V>
inline void add_values(float* acc, long ld, const float (*p)[kChunk], const float* keep, const T* const* values, long n,
                       long at, __mmask16 last) {
  __m512 sums[R][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = _mm512_mul_ps(_mm512_loadu_ps(acc + r * ld + at + 16 * v), _mm512_set1_ps(keep[r]));
  for (long j = 0; j < n; ++j) {
    __m512 value[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      value[v] = v + 1 < V ? load(values[j] + at + 16 * v) : load(values[j] + at + 16 * v, last);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m512 w = _mm512_set1_ps(p[r][j]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = _mm512_fmadd_ps(w, value[v], sums[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(acc + r * ld + at + 16 * v, sums[r][v]);
}

template <class T, int R>
void add_values(float* acc, long ld, const float (*p)[kChunk], const float* keep, const T* const* values, long n, long dim) {
  long at = 0;
  for (; at + 64 <= dim; at += 64) add_values<T, R, 4>(acc, ld, p, keep, values, n, at, 0xffff);
  for (; at < dim; at += 16) add_values<T, R, 1>(acc, ld, p, keep, values, n, at, first(dim - at));
}

// Scores of one row -> weights exp(score - m); returns what earlier sums are multiplied with.
inline float soften(float* p, long n, long low, long high, const Shape& shape, float& m, float& l) {
  const __m512 scale = _mm512_set1_ps(shape.scale), cap = _mm512_set1_ps(shape.soft_cap);
  const __m512 none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 v[kChunk / 16], top = none;
  for (long i = 0; i < kChunk / 16; ++i) {
    __m512 s = _mm512_mul_ps(_mm512_loadu_ps(p + 16 * i), scale);
    if (shape.soft_cap > 0) s = _mm512_mul_ps(cap, tanh(_mm512_div_ps(s, cap)));
    v[i] = _mm512_mask_mov_ps(none, first(std::min(high, n) - 16 * i) & ~first(low - 16 * i), s);
    top = _mm512_max_ps(top, v[i]);
  }
  const float now = std::max(m, _mm512_reduce_max_ps(top));
  if (now == -std::numeric_limits<float>::infinity()) {  // the row sees no key yet
    for (long i = 0; i < kChunk; i += 16) _mm512_storeu_ps(p + i, _mm512_setzero_ps());
    return 1.0f;
  }
  __m512 total = _mm512_setzero_ps();
  for (long i = 0; i < kChunk / 16; ++i) {
    const __m512 e = exp(_mm512_sub_ps(v[i], _mm512_set1_ps(now)));
    _mm512_storeu_ps(p + 16 * i, e);
    total = _mm512_add_ps(total, e);
  }
  const float keep = m == -std::numeric_limits<float>::infinity() ? 0.0f : std::exp(m - now);
  l = l * keep + sum(total);
  m = now;
  return keep;
}

template <class T>
void attend_item(const int32_t* item, const T* q, long ldq, const Step& step, const Shape& s, const Pages& pages,
                 const T* sinks, T* out, long ldo, float* lse, Rows& rows) {
  const long seq = item[0], head = item[1], start = step.query_starts[seq], queries = step.query_starts[seq + 1] - start;
  const long group = s.heads / s.kv_heads, length = step.kv_lens[seq], before = length - queries;
  const long q0 = item[2], q1 = std::min(queries, q0 + tile_queries(s)), n_rows = (q1 - q0) * group;
  const long ld = (s.v_dim + 15) / 16 * 16;
  rows.acc.assign(n_rows * ld, 0.0f);
  const T* row[kMostRows];
  for (long r = 0; r < n_rows; ++r) {
    row[r] = q + (start + q0 + r / group) * ldq + (head * group + r % group) * s.k_dim;
    rows.m[r] = -std::numeric_limits<float>::infinity();
    rows.l[r] = 0.0f;
  }
  // Keys that row r sees: [low, high), counted from the sequence's first token.
  const auto high = [&](long r) { return s.causal ? before + q0 + r / group + 1 : length; };
  const auto low = [&](long r) { return s.window ? std::max<long>(0, before + q0 + r / group + 1 - s.window) : 0; };
  const long begin = low(0), end = high(n_rows - 1);
  const int32_t* table = step.block_table + seq * step.table_stride;
  const long k_row = s.kv_heads * s.k_dim, v_row = s.kv_heads * s.v_dim;
  // The next chunk's keys come from memory while this one is computed, and values while scores are.
  const auto fetch_keys = [&](long at) {
    for (long j = at, stop = std::min(at + kChunk, end); j < stop; ++j)
      fetch(static_cast<const T*>(pages.k) + table[j / s.block_size] * pages.k_stride + j % s.block_size * k_row + head * s.k_dim, s.k_dim);
  };
  for (long chunk = begin / kChunk * kChunk; chunk < end; chunk += kChunk) {
    const long skip = std::max<long>(0, begin - chunk), n = std::min(kChunk, end - chunk);
    const T *keys[kChunk], *values[kChunk];
    for (long j = skip; j < n;) {
      const long page = table[(chunk + j) / s.block_size], at = (chunk + j) % s.block_size;
      const T* key = static_cast<const T*>(pages.k) + page * pages.k_stride + at * k_row + head * s.k_dim;
      const T* value = static_cast<const T*>(pages.v) + page * pages.v_stride + at * v_row + head * s.v_dim;
      for (const long stop = std::min(n, j + s.block_size - at); j < stop; ++j, key += k_row, value += v_row)
        keys[j] = key, values[j] = value, fetch(value, s.v_dim);
    }
    if (chunk + kChunk < end) fetch_keys(chunk + kChunk);
    for (long j = 0; j < skip; ++j) keys[j] = keys[skip], values[j] = values[skip];  // masked, and weight 0
    dot_keys(row, n_rows, keys, n, s.k_dim, rows.p);
    for (long r = 0; r < n_rows; r += 4) {
      const int some = static_cast<int>(std::min<long>(4, n_rows - r));
      float keep[4];
      for (int i = 0; i < some; ++i)
        keep[i] = soften(rows.p[r + i], n, low(r + i) - chunk, high(r + i) - chunk, s, rows.m[r + i], rows.l[r + i]);
      float* acc = rows.acc.data() + r * ld;
      if (some == 4) add_values<T, 4>(acc, ld, rows.p + r, keep, values, n, s.v_dim);
      if (some == 3) add_values<T, 3>(acc, ld, rows.p + r, keep, values, n, s.v_dim);
      if (some == 2) add_values<T, 2>(acc, ld, rows.p + r, keep, values, n, s.v_dim);
      if (some == 1) add_values<T, 1>(acc, ld, rows.p + r, keep, values, n, s.v_dim);
    }
  }
  for (long r = 0; r < n_rows; ++r) {
    const long token = start + q0 + r / group, h = head * group + r % group;
    float m = rows.m[r], l = rows.l[r], keep = 1.0f;
    if (sinks) {
      const float sink = sum(load(sinks + h, 1)), top = std::max(m, sink);
      keep = std::exp(m - top);
      l = l * keep + std::exp(sink - top);
      m = top;
    }
    if (lse) lse[token * s.heads + h] = m + std::log(l);
    const __m512 scale = _mm512_set1_ps(l > 0 ? keep / l : 0.0f);
    for (long d = 0; d < s.v_dim; d += 16)
      store(out + token * ldo + h * s.v_dim + d, _mm512_mul_ps(_mm512_loadu_ps(rows.acc.data() + r * ld + d), scale), first(s.v_dim - d));
  }
}

// All items of the step, shared by the threads as they come. The caller resets ``next`` between two uses.
template <class T>
void attend(const T* q, long ldq, Step& step, const Shape& s, const Pages& pages, const T* sinks, T* out, long ldo, float* lse) {
  static thread_local Rows rows;
  for (long i; (i = step.next.fetch_add(1, std::memory_order_relaxed)) < step.num_items;)
    attend_item(step.items + 3 * i, q, ldq, step, s, pages, sinks, out, ldo, lse, rows);
}
