// y = x W^T + b for row-major x [M, K] and W [N, K], as both lie in memory: nothing is packed. W has elements of x's
// type, or whole numbers of 8 bits and a scale for each row.
//
// Each element is one dot product, summed over k in an order that depends on K alone: a row's result
// does not depend on the rows beside it, nor on the number of threads.
#pragma once
#include <cstddef>
#include <type_traits>
#include <vector>

#include "simd.h"
#include "team.h"

// What is read next, fetched meanwhile: so many lines of 64 bytes at each step through k.
struct Soon {
  const char* at = nullptr;
  int lines = 0;
};

// rows x[0..MR) times rows w[0..NR), MR * NR <= 16 -> sums in vector element m * NR + n.
template <class T, class W, int MR, int NR>
__attribute__((always_inline)) inline __m512 tile(const T* const* x, const W* const* w, long k, Soon soon = {}) {
  using D = Dot<T>;
  __m512 acc[16];
  for (auto& a : acc) a = _mm512_setzero_ps();
  long i = 0;
  for (; i + D::lanes <= k; i += D::lanes) {
    typename D::Vector wv[NR];
#pragma GCC unroll 16
    for (int n = 0; n < NR; ++n) wv[n] = D::load(w[n] + i);
    for (int n = 0; n < soon.lines; ++n, soon.at += 64) _mm_prefetch(soon.at, _MM_HINT_T0);
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m) {
      const auto xv = D::load(x[m] + i);
#pragma GCC unroll 16
      for (int n = 0; n < NR; ++n) acc[m * NR + n] = D::add(acc[m * NR + n], xv, wv[n]);
    }
  }
  if (i < k) {
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 16
      for (int n = 0; n < NR; ++n)
        acc[m * NR + n] = D::add(acc[m * NR + n], D::load_first(x[m] + i, k - i), D::load_first(w[n] + i, k - i));
  }
  return sum_lanes(acc);
}

template <class T>
struct Matrix {  // W [n, k], scales [n] of whole numbers (else null), and an optional bias [n]
  const void* w;
  const float* scales;
  const T* bias;
  long n, k;
  template <class W>
  const W* row(long i) const { return static_cast<const W*>(w) + i * k; }
};

// Elements n of v, for each of the rows of a tile: element m * NR + n.
template <int NR>
inline __m512 for_rows(__m512 v) {
  return NR == 16 ? v : NR == 8 ? _mm512_shuffle_f32x4(v, v, 0x44) : _mm512_shuffle_f32x4(v, v, 0x00);
}

template <class T>
inline const char* line(const T* p) { return reinterpret_cast<const char*>(p); }

// y[0..MR) x [n0, n0 + NR): stores what lies below n_end.
template <class T, class W, int MR, int NR>
__attribute__((always_inline)) inline void tile_at(const T* const* x, const Matrix<T>& a, long n0, long n_end, T* y, long ldy, Soon soon = {}) {
  const W* w[NR];
  for (int n = 0; n < NR; ++n) w[n] = a.template row<W>(std::min(n0 + n, n_end - 1));
  __m512 v = tile<T, W, MR, NR>(x, w, a.k, soon);
  const int width = static_cast<int>(std::min<long>(NR, n_end - n0));
  if (a.scales) v = _mm512_mul_ps(v, for_rows<NR>(load(a.scales + n0, first(width))));
  if (a.bias) v = _mm512_add_ps(v, for_rows<NR>(load(a.bias + n0, first(width))));
  if (MR == 1) return store(y + n0, v, first(width));
  alignas(64) T row[16];
  store(row, v);
  if (width == NR) {
    for (int m = 0; m < MR; ++m) __builtin_memcpy(y + m * ldy + n0, row + m * NR, NR * sizeof(T));
  } else {
    for (int m = 0; m < MR; ++m) __builtin_memcpy(y + m * ldy + n0, row + m * NR, width * sizeof(T));
  }
}

// Lines of rows of W, `rows` of them, that a step through k reads.
template <class T, class W>
constexpr int lines_of(int rows) { return (rows * Dot<T>::lanes * static_cast<int>(sizeof(W)) + 63) / 64; }

template <class T, class W, int MR, int NR>
inline void rows_by_columns(const T* x, long ldx, const Matrix<T>& a, Range n, T* y, long ldy) {
  const T* rows[MR];
  for (int m = 0; m < MR; ++m) rows[m] = x + m * ldx;
  for (long n0 = n.begin; n0 < n.end; n0 += NR) tile_at<T, W, MR, NR>(rows, a, n0, n.end, y, ldy, Soon{line(a.template row<W>(n0 + NR)), lines_of<T, W>(NR)});
}

// Rows [n0, n1) of W with elements of x's type: whole numbers are widened once for all rows of x.
template <class T, class W>
inline Matrix<T> rows_as(const Matrix<T>& a, long n0, long n1) {
  const T* bias = a.bias ? a.bias + n0 : nullptr;
  const float* scales = a.scales ? a.scales + n0 : nullptr;
  if constexpr (std::is_same_v<T, W>) return {a.template row<T>(n0), scales, bias, n1 - n0, a.k};
  using D = Dot<T>;
  static thread_local std::vector<T> wide;
  wide.resize((n1 - n0) * a.k + D::lanes);  // whole vectors are stored, the next row over what they leave
  for (long n = n0; n < n1; ++n) {
    const W* from = a.template row<W>(n);
    T* to = wide.data() + (n - n0) * a.k;
    long i = 0;
    for (; i + D::lanes <= a.k; i += D::lanes) D::store(to + i, D::load(from + i));
    if (i < a.k) D::store(to + i, D::load_first(from + i, a.k - i));
  }
  return {wide.data(), scales, bias, n1 - n0, a.k};
}

// MR rows of x with the first `width` rows of W.
template <class T, int MR>
inline void rows_by_block(const T* x, long ldx, const Matrix<T>& a, long width, T* y, long ldy, Soon& soon) {
  const T* rows[MR];
  for (int m = 0; m < MR; ++m) rows[m] = x + m * ldx;
  for (long n = 0; n < width; n += 4) {
    tile_at<T, T, MR, 4>(rows, a, n, width, y, ldy, soon);
    soon.at += soon.lines * (a.k / Dot<T>::lanes) * 64;
  }
}

constexpr long kFirstCache = 24 << 10, kSecondCache = 512 << 10;  // bytes of W and of x that a block takes of them

// y [m, n.begin..n.end) = x [m, k] W^T + b by the calling thread.
template <class T, class W>
void gemm_of(const T* x, long ldx, long m, const Matrix<T>& a, Range n, T* y, long ldy) {
  if (m == 1) return rows_by_columns<T, W, 1, 16>(x, ldx, a, n, y, ldy);
  if (m == 2) return rows_by_columns<T, W, 2, 8>(x, ldx, a, n, y, ldy);
  if (m == 3) return rows_by_columns<T, W, 3, 4>(x, ldx, a, n, y, ldy);
  // Some rows of W stay in the first cache while all rows of x pass them; so many of x stay in the second.
  const long row = a.k * sizeof(T), most = std::max<long>(4, kSecondCache / row / 4 * 4);
  const long block = std::max<long>(4, kFirstCache / row / 4 * 4);
  for (long m0 = 0; m0 < m; m0 += most) {
    const long m1 = std::min(m, m0 + most), tiles = (m1 - m0 + 3) / 4;
    for (long n0 = n.begin; n0 < n.end; n0 += block) {
      const long n1 = std::min(n.end, n0 + block);
      // The next rows of W, fetched evenly: all at once they would keep the loads of this tile waiting.
      Soon soon{line(a.template row<W>(n1)), tiles < 64 ? static_cast<int>((lines_of<T, W>(4) + tiles - 1) / tiles) : 0};
      const char* const end = line(a.template row<W>(std::min(n.end, n1 + block)));
      const Matrix<T> part = rows_as<T, W>(a, n0, n1);
      const long width = n1 - n0;
      T* out = y + n0;
      long i = m0;
      for (; i + 4 <= m1; i += 4) {
        rows_by_block<T, 4>(x + i * ldx, ldx, part, width, out + i * ldy, ldy, soon);
        if (soon.at >= end) soon.lines = 0;
      }
      if (m1 - i == 1) rows_by_block<T, 1>(x + i * ldx, ldx, part, width, out + i * ldy, ldy, soon);
      if (m1 - i == 2) rows_by_block<T, 2>(x + i * ldx, ldx, part, width, out + i * ldy, ldy, soon);
      if (m1 - i == 3) rows_by_block<T, 3>(x + i * ldx, ldx, part, width, out + i * ldy, ldy, soon);
    }
  }
}

template <class T>
void gemm(const T* x, long ldx, long m, const Matrix<T>& a, Range n, T* y, long ldy) {
  return a.scales ? gemm_of<T, int8_t>(x, ldx, m, a, n, y, ldy) : gemm_of<T, T>(x, ldx, m, a, n, y, ldy);
}

// The same by all threads of a team: each has its columns, so that every row of W is read once.
template <class T>
void gemm_shared(const T* x, long ldx, long m, const Matrix<T>& a, T* y, long ldy, int rank, int size) {
  const Range r = share(a.n, rank, size, 16);
  if (r.begin < r.end) gemm(x, ldx, m, a, r, y, ldy);
}
