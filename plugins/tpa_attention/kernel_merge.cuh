// Last step of a split TPAAttention: the splits' partial outputs, joined by log-sum-exp.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

constexpr int kMergeThreads = 256;
constexpr int kMaxSplits = 256;

template <class A, class Join>
__device__ inline A reduce_block(A value, A* shared, const Join& join) {
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int width = kMergeThreads / 2; width > 0; width /= 2) {
    if (static_cast<int>(threadIdx.x) < width) {
      shared[threadIdx.x] = join(shared[threadIdx.x], shared[threadIdx.x + width]);
    }
    __syncthreads();
  }
  return shared[0];
}

template <class A>
constexpr std::size_t merge_shared_bytes() {
  return (kMaxSplits + kMergeThreads * kUnit<A>) * sizeof(A);
}

// Sum over the splits of factor * partial output, WIDTH columns per thread; threads side by side take columns, and
// where there are few of those, several threads share a column's splits. `first`: of this head; a split is p.heads
// further.
template <class T, int WIDTH>
__device__ inline void merge_columns(const TpaAttentionParams& p, int splits, std::size_t first, std::size_t output,
                                     const accum_t<T>* partial, const accum_t<T>* factors, accum_t<T> sum,
                                     accum_t<T>* shared) {
  using A = accum_t<T>;
  const int tid = threadIdx.x, width = p.value_size / WIDTH;
  int units = 1;
  while (units < width && units < kMergeThreads) units *= 2;
  for (int first_unit = 0; first_unit < width; first_unit += units) {
    const int unit = first_unit + tid % units;
    A y[WIDTH] = {};
    if (unit < width) {
#pragma unroll 4
      for (int split = tid / units; split < splits; split += kMergeThreads / units) {
        const std::size_t row = first + static_cast<std::size_t>(split) * p.heads;
        const Vec<A, WIDTH> part = *reinterpret_cast<const Vec<A, WIDTH>*>(partial + row * p.value_size + unit * WIDTH);
#pragma unroll
        for (int c = 0; c < WIDTH; ++c) y[c] += factors[split] * part.at[c];
      }
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < WIDTH; ++c) shared[tid * WIDTH + c] = y[c];
    __syncthreads();
    for (int at = tid; at < units * WIDTH; at += kMergeThreads) {
      const int column = first_unit * WIDTH + at;
      if (column >= p.value_size) break;
      A total = A(0);
      for (int part = at; part < kMergeThreads * WIDTH; part += units * WIDTH) total += shared[part];
      static_cast<T*>(p.output)[output + column] = from_accum<T>(total / sum * A(p.value_scale));
    }
  }
}

// Grid: (B * S, H). partial: [B*S, splits, H, E], relative to exp(maximum); states: [B*S, splits, H, 2], maximum, sum.
template <class T>
__global__ void __launch_bounds__(kMergeThreads)
    tpa_merge_kernel(const TpaAttentionParams p, int splits, const accum_t<T>* partial, const accum_t<T>* states) {
  using A = accum_t<T>;
  EDGEKIT_SHARED_MEMORY(memory);
  A* factors = reinterpret_cast<A*>(memory);  // [kMaxSplits]
  A* shared = factors + kMaxSplits;           // [kMergeThreads * kUnit<A>]
  const int tid = threadIdx.x, head = blockIdx.y;
  const std::size_t row = blockIdx.x, first = row * splits * p.heads + head;  // a split is p.heads further

  A largest = minus_infinity<A>();
  for (int split = tid; split < splits; split += kMergeThreads) {
    const A maximum = states[(first + static_cast<std::size_t>(split) * p.heads) * 2];
    largest = maximum > largest ? maximum : largest;
  }
  largest = reduce_block(largest, shared, [](A a, A b) { return a > b ? a : b; });
  A sum = A(0);
  for (int split = tid; split < splits; split += kMergeThreads) {
    const std::size_t at = (first + static_cast<std::size_t>(split) * p.heads) * 2;
    const A factor = softmax_rescale(states[at], largest);
    factors[split] = factor;
    sum += states[at + 1] * factor;
  }
  sum = reduce_block(sum, shared, [](A a, A b) { return a + b; });

  const std::size_t output = (row * p.heads + head) * p.value_size;
  if (p.value_size % kUnit<A> == 0) {  // the workspace is aligned to 16 bytes
    merge_columns<T, kUnit<A>>(p, splits, first, output, partial, factors, sum, shared);
  } else {
    merge_columns<T, 1>(p, splits, first, output, partial, factors, sum, shared);
  }
}

}  // namespace edgekit
