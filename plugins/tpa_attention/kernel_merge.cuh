// Last step of a split TPAAttention: the splits' partial outputs, joined by log-sum-exp.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

constexpr int kMergeThreads = 128;
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
  return (kMaxSplits + kMergeThreads) * sizeof(A);
}

// Grid: (B * S, H). partial: [B*S, splits, H, E], relative to exp(maximum); states: [B*S, splits, H, 2], maximum, sum.
template <class T>
__global__ void __launch_bounds__(kMergeThreads)
    tpa_merge_kernel(const TpaAttentionParams p, int splits, const accum_t<T>* partial, const accum_t<T>* states) {
  using A = accum_t<T>;
  EDGEKIT_SHARED_MEMORY(memory);
  A* factors = reinterpret_cast<A*>(memory);  // [kMaxSplits]
  A* shared = factors + kMaxSplits;           // [kMergeThreads]
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

  // Threads side by side take columns; where there are few of those, several threads share a column's splits.
  int columns = 1;
  while (columns < p.value_size && columns < kMergeThreads) columns *= 2;
  for (int first_column = 0; first_column < p.value_size; first_column += columns) {
    const int column = first_column + tid % columns;
    A y = A(0);
    if (column < p.value_size) {
#pragma unroll 4
      for (int split = tid / columns; split < splits; split += kMergeThreads / columns) {
        y += factors[split] * partial[(first + static_cast<std::size_t>(split) * p.heads) * p.value_size + column];
      }
    }
    __syncthreads();
    shared[tid] = y;
    __syncthreads();
    if (tid < columns && column < p.value_size) {
      for (int other = tid + columns; other < kMergeThreads; other += columns) y += shared[other];
      static_cast<T*>(p.output)[(row * p.heads + head) * p.value_size + column] =
          from_accum<T>(y / sum * A(p.value_scale));
    }
  }
}

}  // namespace edgekit
