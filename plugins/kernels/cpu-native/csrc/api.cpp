// The functions that Python calls, by ctypes. `is_float`: elements are float32, else bfloat16.
#include "layers.h"
#include "sampler.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void native_threads(int n) { Team::get().resize(n); }

EXPORT long native_items(const Step* step, const Shape* shape, int32_t* items, long room) {
  return list_items(*step, *shape, items, room);
}

template <class T>
static void linear(const T* x, long m, const Linear& l, T* y) {
  Team::get().run([&](int rank, int size) { gemm_shared(x, l.in, m, l.matrix<T>(), y, l.out, rank, size); });
}

EXPORT void native_linear(int is_float, const void* x, long m, const void* w, const void* scales, const void* b, long n,
                          long k, void* y) {
  const Linear l{w, scales, b, n, k};
  if (is_float) linear(static_cast<const float*>(x), m, l, static_cast<float*>(y));
  else linear(static_cast<const bf16*>(x), m, l, static_cast<bf16*>(y));
}

template <class T>
static void write(const T* k, const T* v, long ldk, long ldv, const Step& step, const Shape& s, const Pages& p) {
  write_pages(k, v, ldk, ldv, step, s, p, Range{0, step.tokens});
}

EXPORT void native_write(int is_float, const void* k, const void* v, long ldk, long ldv, const Step* step, const Shape* s,
                         const Pages* p) {
  if (is_float) write(static_cast<const float*>(k), static_cast<const float*>(v), ldk, ldv, *step, *s, *p);
  else write(static_cast<const bf16*>(k), static_cast<const bf16*>(v), ldk, ldv, *step, *s, *p);
}

template <class T>
static void attend_all(const T* q, long ldq, Step& step, const Shape& s, const Pages& p, const T* sinks, T* out, float* lse) {
  step.next.store(0, std::memory_order_relaxed);
  Team::get().run([&](int, int) { attend(q, ldq, step, s, p, sinks, out, s.heads * s.v_dim, lse); });
}

EXPORT void native_attend(int is_float, const void* q, long ldq, Step* step, const Shape* s, const Pages* p,
                          const void* sinks, void* out, float* lse) {
  if (is_float)
    attend_all(static_cast<const float*>(q), ldq, *step, *s, *p, static_cast<const float*>(sinks), static_cast<float*>(out), lse);
  else
    attend_all(static_cast<const bf16*>(q), ldq, *step, *s, *p, static_cast<const bf16*>(sinks), static_cast<bf16*>(out), lse);
}

EXPORT void native_decoder_attention(int is_float, const AttentionLayer* a, Step* step, const Pages* p, void* x,
                                     void* residual, int is_first, const float* cos, const float* sin) {
  if (is_float)
    decoder_attention(*a, *step, *p, static_cast<float*>(x), static_cast<float*>(residual), is_first, cos, sin);
  else
    decoder_attention(*a, *step, *p, static_cast<bf16*>(x), static_cast<bf16*>(residual), is_first, cos, sin);
}

EXPORT void native_gated_mlp(int is_float, const MlpLayer* a, long tokens, void* x, void* residual, int is_first) {
  if (is_float) gated_mlp(*a, tokens, static_cast<float*>(x), static_cast<float*>(residual), is_first);
  else gated_mlp(*a, tokens, static_cast<bf16*>(x), static_cast<bf16*>(residual), is_first);
}

EXPORT void native_sample(int is_float, const void* logits, long rows, long n, const Sampling* s, int64_t* tokens,
                          float* probs) {
  const auto work = [&](int rank, int size) {
    const Range mine = share(rows, rank, size);
    if (is_float) sample(static_cast<const float*>(logits), n, *s, tokens, probs, mine);
    else sample(static_cast<const bf16*>(logits), n, *s, tokens, probs, mine);
  };
  if (rows == 1) work(0, 1);
  else Team::get().run(work);
}

template <class T>
static void rms_norm_rows(const T* x, T* residual, T* y, long rows, long n, const Norm& norm) {
  Team::get().run([&](int rank, int size) {
    const Range mine = share(rows, rank, size);
    for (long t = mine.begin; t < mine.end; ++t) {
      if (residual) add(x + t * n, residual + t * n, n);
      rms_norm(residual ? residual + t * n : x + t * n, y + t * n, n, norm);
    }
  });
}

EXPORT void native_rms_norm(int is_float, const void* x, void* residual, void* y, long rows, long n, const void* weight,
                            float eps) {
  const Norm norm{weight, is_float, eps};
  if (is_float)
    rms_norm_rows(static_cast<const float*>(x), static_cast<float*>(residual), static_cast<float*>(y), rows, n, norm);
  else
    rms_norm_rows(static_cast<const bf16*>(x), static_cast<bf16*>(residual), static_cast<bf16*>(y), rows, n, norm);
}
