// Compiled for any x86-64: what the rest of the library needs of the processor.
extern "C" __attribute__((visibility("default"))) int native_supported() {
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
  return !wide ? 0 : __builtin_cpu_supports("avx512bf16") ? 2 : 1;
}
