// Kernels with a fault each, and one without, so that a test can see what compute-sanitizer finds.

extern "C" __global__ void right(float* x, int n) {
    if (threadIdx.x < n) x[threadIdx.x] = 1.f;
}

// Writes one number behind the end.
extern "C" __global__ void overrun(float* x, int n) {
    if (threadIdx.x <= n) x[threadIdx.x] = 1.f;
}

// Reads what another warp writes, without a barrier.
extern "C" __global__ void race(float* x, int n) {
    __shared__ float shared[1024];
    shared[threadIdx.x] = float(threadIdx.x);
    if (threadIdx.x < n) x[threadIdx.x] = shared[(threadIdx.x + 33) % blockDim.x];
}
