// Work on one row of activations: norms, rotary, gates.
#pragma once
#include "simd.h"

// A norm's weight: in the dtype of the activations or in float32; none: no norm.
struct Norm {
  const void* weight;
  int is_float;
  float eps;
};

template <class T>
inline __m512 norm_weight(const Norm& norm, long i, __mmask16 m) {
  return norm.is_float ? load(static_cast<const float*>(norm.weight) + i, m) : load(static_cast<const T*>(norm.weight) + i, m);
}

// y = weight * x / sqrt(mean(x^2) + eps) over n elements; x and y may be the same.
template <class T>
inline void rms_norm(const T* x, T* y, long n, const Norm& norm) {
  __m512 squares = _mm512_setzero_ps();
  for (long i = 0; i < n; i += 16) {
    const __m512 v = load(x + i, first(n - i));
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const __m512 scale = _mm512_set1_ps(1.0f / __builtin_sqrtf(sum(squares) / n + norm.eps));
  for (long i = 0; i < n; i += 16) {
    const __mmask16 m = first(n - i);
    store(y + i, _mm512_mul_ps(_mm512_mul_ps(load(x + i, m), scale), norm_weight<T>(norm, i, m)), m);
  }
}

// residual += x, rounded to T.
template <class T>
inline void add(const T* x, T* residual, long n) {
  for (long i = 0; i < n; i += 16) {
    const __mmask16 m = first(n - i);
    store(residual + i, _mm512_add_ps(load(x + i, m), load(residual + i, m)), m);
  }
}

// Pairs (x[i], x[i + half]), or (x[2i], x[2i + 1]) if interleaved, turned by cos, sin [half].
template <class T>
inline void rotate(T* x, const float* cos, const float* sin, long half, bool interleaved) {
  if (interleaved) {
    alignas(64) float a[16], b[16];
    for (long i = 0; i < half; ++i) {
      store(a, load(x + 2 * i, 3), 3);
      const float first_ = a[0] * cos[i] - a[1] * sin[i], second = a[1] * cos[i] + a[0] * sin[i];
      b[0] = first_, b[1] = second;
      store(x + 2 * i, load(b, 3), 3);
    }
    return;
  }
  for (long i = 0; i < half; i += 16) {
    const __mmask16 m = first(half - i);
    const __m512 a = load(x + i, m), b = load(x + half + i, m), c = load(cos + i, m), s = load(sin + i, m);
    store(x + i, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)), m);
    store(x + half + i, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)), m);
  }
}

enum Activation { kSilu = 0, kGeluTanh = 1, kGeluErf = 2 };

inline __m512 activate(__m512 x, int act) {
  if (act == kSilu) return _mm512_mul_ps(x, sigmoid(x));
  if (act == kGeluTanh) {
    const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const __m512 inner = _mm512_mul_ps(_mm512_set1_ps(0.7978845608f), _mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x));
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.5f), x), _mm512_add_ps(_mm512_set1_ps(1.0f), tanh(inner)));
  }
  alignas(64) float v[16];
  _mm512_store_ps(v, x);
  for (float& e : v) e = 0.5f * e * (1.0f + __builtin_erff(e * 0.70710678f));
  return _mm512_load_ps(v);
}

// y = act(gate) * up over n elements; y may be gate.
template <class T>
inline void gate(const T* g, const T* up, T* y, long n, int act) {
  for (long i = 0; i < n; i += 16) {
    const __mmask16 m = first(n - i);
    store(y + i, _mm512_mul_ps(activate(load(g + i, m), act), load(up + i, m)), m);
  }
}
