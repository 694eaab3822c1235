// What kernels need beyond core.h: launches, shared memory and 16-byte copies, under nvcc and cuda_on_host.h alike.
#pragma once

#include "core.h"

#ifdef EDGEKIT_CUDA_ON_HOST
#include "cuda_on_host.h"
#define EDGEKIT_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  ((void)(stream), edgekit::host::launch(blocks, threads, shared_bytes, [=] { kernel(__VA_ARGS__); }))
#define EDGEKIT_SHARED_MEMORY(name) unsigned char* name = edgekit::host::current().state->dynamic_shared()
#else
#include <cuda_runtime.h>
#define EDGEKIT_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  (edgekit::allow_shared_memory(kernel, shared_bytes), kernel<<<blocks, threads, shared_bytes, stream>>>(__VA_ARGS__))
#define EDGEKIT_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#endif

// A barrier that a test takes out to see that ThreadSanitizer notices.
#ifdef EDGEKIT_SEED_MISSING_SYNC
#define EDGEKIT_SEEDED_SYNC() ((void)0)
#else
#define EDGEKIT_SEEDED_SYNC() __syncthreads()
#endif

namespace edgekit {

#ifndef EDGEKIT_CUDA_ON_HOST
// More than 48 KiB have to be asked for. Where that fails, the launch reports it.
template <class Kernel>
void allow_shared_memory(Kernel* kernel, std::size_t bytes) {
  if (bytes > 48 << 10) {
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
  }
}
#endif

// N values that are loaded and stored as one.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T at[N];
};

template <class T>
constexpr int kUnit = 16 / static_cast<int>(sizeof(T));  // elements in 16 bytes

// Copy 16 bytes from global to shared memory without passing through registers; zeros where `take` is false.
__device__ inline void copy16_async(void* to, const void* from, bool take) {
#if defined(__CUDA_ARCH__)
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(take ? 16 : 0) : "memory");
#else
  if (take) {
    memcpy(to, from, 16);
  } else {
    memset(to, 0, 16);
  }
#endif
}

__device__ inline void copy_commit() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most `Pending` of this thread's committed groups are still under way.
template <int Pending>
__device__ inline void copy_wait() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

// Load 4 consecutive values of `row` at column `column`, 0 beyond `width`. `aligned`: rows are aligned to 4 elements.
template <class T>
__device__ inline void load4(accum_t<T> (&to)[4], const T* row, int column, int width, bool aligned) {
  if (aligned && column + 4 <= width) {
    const Vec<T, 4> four = *reinterpret_cast<const Vec<T, 4>*>(row + column);
#pragma unroll
    for (int c = 0; c < 4; ++c) to[c] = to_accum(four.at[c]);
  } else {
#pragma unroll
    for (int c = 0; c < 4; ++c) to[c] = column + c < width ? to_accum(row[column + c]) : accum_t<T>(0);
  }
}

// Maximum or sum over groups of 8 neighbouring lanes; every lane of the warp takes part.
template <class A>
__device__ inline A max_of_8(A value) {
#pragma unroll
  for (int lanes = 4; lanes > 0; lanes >>= 1) {
    const A other = __shfl_xor_sync(0xffffffffu, value, lanes);
    value = other > value ? other : value;
  }
  return value;
}

template <class A>
__device__ inline A sum_of_8(A value) {
#pragma unroll
  for (int lanes = 4; lanes > 0; lanes >>= 1) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

// The slots before the new ones, where the present is not the past tensor itself. In place the rest of the buffer is
// copied too, so that both hold the same.
inline cudaError_t copy_past(void* present, const void* past, int batch, int past_slots, int present_slots,
                             std::size_t row_bytes, cudaStream_t stream) {
  if (present == past || past_slots == 0) return cudaSuccess;
  return cudaMemcpy2DAsync(present, present_slots * row_bytes, past, past_slots * row_bytes, past_slots * row_bytes,
                           batch, cudaMemcpyDeviceToDevice, stream);
}

}  // namespace edgekit
