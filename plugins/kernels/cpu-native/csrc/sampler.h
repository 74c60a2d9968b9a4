// Tokens from logits: the contract of vllm_core.interfaces.sampler.Sampler, a row at a time.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "simd.h"
#include "team.h"

struct Sampling {  // one element a row
  const float* temperature;  // 0: the largest logit wins
  const int64_t* top_k;      // 0: all
  const float* top_p;
  const float* min_p;
  const double* noise;
};

// The index of the largest element, the lowest of equals.
template <class T>
long likeliest(const T* x, long n) {
  __m512 best = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512i at = _mm512_set1_epi32(-1), here = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (long i = 0; i < n; i += 16) {
    const __mmask16 m = first(n - i);
    const __m512 v = load(x + i, m);
    const __mmask16 larger = _mm512_mask_cmp_ps_mask(m, v, best, _CMP_GT_OQ);
    best = _mm512_mask_mov_ps(best, larger, v);
    at = _mm512_mask_mov_epi32(at, larger, here);
    here = _mm512_add_epi32(here, _mm512_set1_epi32(16));
  }
  const float top = _mm512_reduce_max_ps(best);
  // Lanes that met nothing above -inf count as if they had none.
  const __mmask16 equal = _mm512_cmp_ps_mask(best, _mm512_set1_ps(top), _CMP_EQ_OQ) & _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
  return equal ? _mm512_mask_reduce_min_epi32(equal, at) : 0;
}

inline float value_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

// The largest weight t, 0 to 1, for which those of at least t sum to `target` or more: found bit by bit, as floats
// of 0 and above are ordered like their bits.
inline float nucleus_threshold(const float* w, long n, float target) {
  uint32_t bits = 0;
  for (int bit = 29; bit >= 0; --bit) {
    const __m512 trial = _mm512_set1_ps(value_of(bits | 1u << bit));
    __m512 mass = _mm512_setzero_ps();
    for (long i = 0; i < n; i += 16) {
      const __m512 v = _mm512_loadu_ps(w + i);
      mass = _mm512_mask_add_ps(mass, _mm512_cmp_ps_mask(v, trial, _CMP_GE_OQ), mass, v);
    }
    if (sum(mass) >= target) bits |= 1u << bit;
  }
  return value_of(bits);
}

// The k-th largest of scores, all 0 or below: the smallest distance d from 0 that k of them have at most.
inline float kth_largest(const float* scores, long n, long k) {
  uint32_t bits = 0;  // the largest distance that fewer than k have
  for (int bit = 30; bit >= 0; --bit) {
    const uint32_t trial = bits | 1u << bit;
    const __m512 limit = _mm512_set1_ps(-value_of(trial));
    long count = 0;
    for (long i = 0; i < n; i += 16)
      count += __builtin_popcount(_mm512_mask_cmp_ps_mask(first(n - i), _mm512_loadu_ps(scores + i), limit, _CMP_GE_OQ));
    if (count < k && trial < 0x7f800000u) bits = trial;
  }
  // The nearest score beyond that distance is the k-th.
  __m512 best = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  long nearer = 0;
  for (long i = 0; i < n; i += 16) {
    const __m512 v = _mm512_loadu_ps(scores + i);
    const __mmask16 m = first(n - i), beyond = _mm512_mask_cmp_ps_mask(m, v, _mm512_set1_ps(-value_of(bits)), _CMP_LT_OQ);
    nearer += __builtin_popcount(m & ~beyond);
    best = _mm512_mask_max_ps(best, beyond, best, v);
  }
  return nearer >= k ? -value_of(bits) : _mm512_reduce_max_ps(best);
}

// w [n rounded up to 16] becomes proportional to each token's probability, 0 beyond n; the largest is 1.
template <class T>
void weigh(const T* logits, long n, float temperature, long top_k, float top_p, float min_p, float* w) {
  __m512 top = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (long i = 0; i < n; i += 16) top = _mm512_mask_max_ps(top, first(n - i), top, load(logits + i, first(n - i)));
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(top)), t = _mm512_set1_ps(temperature);
  for (long i = 0; i < n; i += 16)
    _mm512_storeu_ps(w + i, _mm512_div_ps(_mm512_sub_ps(load(logits + i, first(n - i)), largest), t));
  const float least = top_k > 0 && top_k < n ? kth_largest(w, n, top_k) : -std::numeric_limits<float>::infinity();
  __m512 total = _mm512_setzero_ps();
  for (long i = 0; i < n; i += 16) {
    const __m512 s = _mm512_loadu_ps(w + i);
    const __m512 e = exp(s);
    const __mmask16 stays = _mm512_mask_cmp_ps_mask(first(n - i), s, _mm512_set1_ps(least), _CMP_GE_OQ) &
                            _mm512_cmp_ps_mask(e, _mm512_set1_ps(min_p), _CMP_GE_OQ);
    const __m512 kept = _mm512_maskz_mov_ps(stays, e);
    _mm512_storeu_ps(w + i, kept);
    total = _mm512_add_ps(total, kept);
  }
  if (top_p >= 1) return;
  const __m512 threshold = _mm512_set1_ps(
      nucleus_threshold(w, n, std::max(sum(total) * top_p, std::numeric_limits<float>::min())));
  for (long i = 0; i < n; i += 16) {
    const __m512 v = _mm512_loadu_ps(w + i);
    _mm512_storeu_ps(w + i, _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, threshold, _CMP_GE_OQ), v));
  }
}

inline double block_sum(const float* w, long n) {
  __m512 s = _mm512_setzero_ps();
  for (long i = 0; i < n; i += 16) s = _mm512_add_ps(s, _mm512_loadu_ps(w + i));
  return sum(s);
}

// The token where the running sum of weights passes noise * total; never one of weight 0.
inline long draw(const float* w, long n, double noise) {
  constexpr long block = 128;
  const long padded = (n + 15) / 16 * 16;
  double total = 0;
  for (long i = 0; i < padded; i += block) total += block_sum(w + i, std::min(block, padded - i));
  const double target = noise * total;
  double before = 0;
  long last = 0;
  for (long i = 0; i < padded; i += block) {
    const double mass = block_sum(w + i, std::min(block, padded - i));
    if (mass > 0 && before + mass > target) {
      double running = before;
      for (long j = i; j < std::min(i + block, n); ++j) {
        if (w[j] > 0) last = j;
        running += w[j];
        if (w[j] > 0 && running > target) return j;
      }
      return last;  // rounding within the block
    }
    if (mass > 0)
      for (long j = std::min(i + block, n) - 1; j >= i; --j)
        if (w[j] > 0) {
          last = j;
          break;
        }
    before += mass;
  }
  return last;
}

// Rows of logits [rows, n] -> tokens [rows], or (tokens null) probabilities [rows, n].
template <class T>
void sample(const T* logits, long n, const Sampling& s, int64_t* tokens, float* probs, Range mine) {
  thread_local std::vector<float> buffer;
  buffer.resize((n + 15) / 16 * 16);
  float* w = buffer.data();
  for (long r = mine.begin; r < mine.end; ++r) {
    const T* row = logits + r * n;
    const bool greedy = s.temperature[r] == 0;
    const long top = greedy ? likeliest(row, n) : 0;
    if (tokens && greedy) {
      tokens[r] = top;
      continue;
    }
    float* out = probs ? probs + r * n : nullptr;
    if (greedy) {
      std::fill(out, out + n, 0.0f);
      out[top] = 1.0f;
      continue;
    }
    weigh(row, n, s.temperature[r], s.top_k[r], s.top_p[r], s.min_p[r], w);
    if (tokens) {
      tokens[r] = draw(w, n, s.noise[r]);
      continue;
    }
    double total = 0;
    for (long i = 0; i < n; i += 16) total += sum(_mm512_loadu_ps(w + i));
    for (long i = 0; i < n; i += 16)
      store(out + i, _mm512_mul_ps(_mm512_loadu_ps(w + i), _mm512_set1_ps(static_cast<float>(1 / total))), first(n - i));
  }
}
