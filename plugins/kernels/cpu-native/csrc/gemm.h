// y = x W^T + b for row-major x [M, K] and W [N, K], as both lie in memory: nothing is packed.
//
// Each element is one dot product, summed over k in an order that depends on K alone: a row's result
// does not depend on the rows beside it, nor on the number of threads.
#pragma once
#include <cstddef>

#include "simd.h"
#include "team.h"

// What is read next, fetched meanwhile: so many lines of 64 bytes at each step through k.
struct Soon {
  const char* at = nullptr;
  int lines = 0;
};

// rows x[0..MR) times rows w[0..NR), MR * NR <= 16 -> sums in vector element m * NR + n.
template <class T, int MR, int NR>
inline __m512 tile(const T* const* x, const T* const* w, long k, Soon soon = {}) {
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
struct Matrix {  // W [n, k] and an optional bias [n]
  const T* w;
  const T* bias;
  long n, k;
};

template <class T>
inline const char* line(const T* p) { return reinterpret_cast<const char*>(p); }

// y[0..MR) x [n0, n0 + NR): stores what lies below n_end.
template <class T, int MR, int NR>
inline void tile_at(const T* const* x, const Matrix<T>& a, long n0, long n_end, T* y, long ldy, Soon soon = {}) {
  const T* w[NR];
  for (int n = 0; n < NR; ++n) w[n] = a.w + std::min(n0 + n, n_end - 1) * a.k;
  __m512 v = tile<T, MR, NR>(x, w, a.k, soon);
  const int width = static_cast<int>(std::min<long>(NR, n_end - n0));
  if (a.bias) {
    alignas(64) float b[16] = {};
    for (int i = 0; i < MR * NR; ++i)
      if (i % NR < width) b[i] = sum(load(a.bias + n0 + i % NR, 1));
    v = _mm512_add_ps(v, _mm512_load_ps(b));
  }
  if (MR == 1) return store(y + n0, v, first(width));
  alignas(64) T row[16];
  store(row, v);
  if (width == NR) {
    for (int m = 0; m < MR; ++m) __builtin_memcpy(y + m * ldy + n0, row + m * NR, NR * sizeof(T));
  } else {
    for (int m = 0; m < MR; ++m) __builtin_memcpy(y + m * ldy + n0, row + m * NR, width * sizeof(T));
  }
}

template <class T, int MR, int NR>
inline void rows_by_columns(const T* x, long ldx, const Matrix<T>& a, Range n, T* y, long ldy) {
  const T* rows[MR];
  for (int m = 0; m < MR; ++m) rows[m] = x + m * ldx;
  for (long n0 = n.begin; n0 < n.end; n0 += NR) tile_at<T, MR, NR>(rows, a, n0, n.end, y, ldy, Soon{line(a.w + (n0 + NR) * a.k), NR});
}

// MR rows of x with the rows [n0, n1) of W.
template <class T, int MR>
inline void rows_by_block(const T* x, long ldx, const Matrix<T>& a, long n0, long n1, long n_end, T* y, long ldy, Soon& soon) {
  const T* rows[MR];
  for (int m = 0; m < MR; ++m) rows[m] = x + m * ldx;
  for (long n = n0; n < n1; n += 4) {
    tile_at<T, MR, 4>(rows, a, n, n_end, y, ldy, soon);
    soon.at += soon.lines * (a.k / Dot<T>::lanes) * 64;
  }
}

constexpr long kFirstCache = 24 << 10, kSecondCache = 512 << 10;  // bytes of W and of x that a block takes of them

// y [m, n.begin..n.end) = x [m, k] W^T + b by the calling thread.
template <class T>
void gemm(const T* x, long ldx, long m, const Matrix<T>& a, Range n, T* y, long ldy) {
  if (m == 1) return rows_by_columns<T, 1, 16>(x, ldx, a, n, y, ldy);
  if (m == 2) return rows_by_columns<T, 2, 8>(x, ldx, a, n, y, ldy);
  if (m == 3) return rows_by_columns<T, 3, 4>(x, ldx, a, n, y, ldy);
  // Some rows of W stay in the first cache while all rows of x pass them; so many of x stay in the second.
  const long row = a.k * sizeof(T), most = std::max<long>(4, kSecondCache / row / 4 * 4);
  const long block = std::max<long>(4, kFirstCache / row / 4 * 4);
  for (long m0 = 0; m0 < m; m0 += most) {
    const long m1 = std::min(m, m0 + most), tiles = (m1 - m0 + 3) / 4;
    for (long n0 = n.begin; n0 < n.end; n0 += block) {
      const long n1 = std::min(n.end, n0 + block);
      // The next rows of W, fetched evenly: all at once they would keep the loads of this tile waiting.
      Soon soon{line(a.w + n1 * a.k), tiles < 64 ? static_cast<int>((4 + tiles - 1) / tiles) : 0};
      const char* const end = line(a.w + std::min(n.end, n1 + block) * a.k);
      long i = m0;
      for (; i + 4 <= m1; i += 4) {
        rows_by_block<T, 4>(x + i * ldx, ldx, a, n0, n1, n.end, y + i * ldy, ldy, soon);
        if (soon.at >= end) soon.lines = 0;
      }
      if (m1 - i == 1) rows_by_block<T, 1>(x + i * ldx, ldx, a, n0, n1, n.end, y + i * ldy, ldy, soon);
      if (m1 - i == 2) rows_by_block<T, 2>(x + i * ldx, ldx, a, n0, n1, n.end, y + i * ldy, ldy, soon);
      if (m1 - i == 3) rows_by_block<T, 3>(x + i * ldx, ldx, a, n0, n1, n.end, y + i * ldy, ldy, soon);
    }
  }
}

// The same by all threads of a team: each has its columns, so that every row of W is read once.
template <class T>
void gemm_shared(const T* x, long ldx, long m, const Matrix<T>& a, T* y, long ldy, int rank, int size) {
  const Range r = share(a.n, rank, size, 16);
  if (r.begin < r.end) gemm(x, ldx, m, a, r, y, ldy);
}
