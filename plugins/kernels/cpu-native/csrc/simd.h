// Vectors of 16 floats and what they are loaded from and stored to: float32, or bfloat16 as raw uint16.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <initializer_list>

using bf16 = uint16_t;

// The first n lanes: none for n <= 0, all for n >= 16.
inline __mmask16 first(long n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

inline __m512 widen(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
inline __m512 widen8(__m128i v) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v)); }
inline __m256i narrow(__m512 v) { return (__m256i)_mm512_cvtneps_pbh(v); }

inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
inline __m512 load(const bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline __m512 load(const float* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
inline __m512 load(const bf16* p, __mmask16 m) { return widen(_mm256_maskz_loadu_epi16(m, p)); }
inline void store(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
inline void store(bf16* p, __m512 v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v)); }
inline void store(float* p, __m512 v, __mmask16 m) { _mm512_mask_storeu_ps(p, m, v); }
inline void store(bf16* p, __m512 v, __mmask16 m) { _mm256_mask_storeu_epi16(p, m, narrow(v)); }

// What a product multiplies at a time: 16 floats by FMA, or 32 bfloat16 by dot products of pairs.
template <class T>
struct Dot;

template <>
struct Dot<float> {
  static constexpr int lanes = 16;
  using Vector = __m512;
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector load_first(const float* p, long n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static Vector load(const int8_t* p) { return widen8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Vector load_first(const int8_t* p, long n) { return widen8(_mm_maskz_loadu_epi8(first(n), p)); }
  static void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
  static __m512 add(__m512 sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
};

template <>
struct Dot<bf16> {
  static constexpr int lanes = 32;
  using Vector = __m512bh;
  static Vector load(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Vector load_first(const bf16* p, long n) {
    const __mmask32 m = n >= 32 ? 0xffffffffu : (1u << n) - 1;
    return (__m512bh)_mm512_maskz_loadu_epi16(m, p);
  }
  // Whole numbers of 8 bits have no more digits than bfloat16.
  static Vector load(const int8_t* p) { return narrow8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Vector load_first(const int8_t* p, long n) {
    return narrow8(_mm256_maskz_loadu_epi8(n >= 32 ? 0xffffffffu : (1u << n) - 1, p));
  }
  static Vector narrow8(__m256i v) {
    return _mm512_cvtne2ps_pbh(widen8(_mm256_extracti128_si256(v, 1)), widen8(_mm256_castsi256_si128(v)));
  }
  static void store(bf16* p, Vector v) { _mm512_storeu_si512(p, (__m512i)v); }
  static __m512 add(__m512 sum, Vector a, Vector b) { return _mm512_dpbf16_ps(sum, a, b); }
};

// The sums over the lanes of 16 vectors, as one vector. Every vector is added up in the same order.
inline __m512 sum_lanes(__m512 a[16]) {
  for (int i = 0; i < 16; i += 2)
    a[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[i], a[i + 1]), _mm512_unpackhi_ps(a[i], a[i + 1]));
  for (int i = 0; i < 16; i += 4) {
    const __m512d p = _mm512_castps_pd(a[i]), q = _mm512_castps_pd(a[i + 2]);
    a[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)), _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
  }
  // Each 128-bit lane of a[0], a[4], a[8], a[12] holds partial sums of four vectors.
  const __m512 b0 = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[4], 0x88), _mm512_shuffle_f32x4(a[0], a[4], 0xdd));
  const __m512 b1 = _mm512_add_ps(_mm512_shuffle_f32x4(a[8], a[12], 0x88), _mm512_shuffle_f32x4(a[8], a[12], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(b0, b1, 0x88), _mm512_shuffle_f32x4(b0, b1, 0xdd));
}

inline float sum(__m512 v) { return _mm512_reduce_add_ps(v); }

// exp(x), relative error below 2e-7 (Cephes' polynomial after taking off a power of two); 0 for x below -87.3.
inline __m512 exp(__m512 x) {
  const __mmask16 alive = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_GE_OQ);
  x = _mm512_min_ps(x, _mm512_set1_ps(88.7f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 y = _mm512_set1_ps(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(c));
  y = _mm512_add_ps(_mm512_fmadd_ps(y, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(alive, y, n);
}

inline __m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// 2 sigmoid(2x) - 1, and x itself where that would lose its digits.
inline __m512 tanh(__m512 x) {
  const __m512 two = _mm512_set1_ps(2.0f);
  const __m512 y = _mm512_fmsub_ps(two, sigmoid(_mm512_mul_ps(two, x)), _mm512_set1_ps(1.0f));
  const __mmask16 tiny = _mm512_cmp_ps_mask(_mm512_abs_ps(x), _mm512_set1_ps(2e-3f), _CMP_LT_OQ);
  return _mm512_mask_mov_ps(y, tiny, x);
}
