// First step of TPAAttention: the new tokens' rows go into the cache, keys rotated; the rotated query into workspace.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

constexpr int kAppendThreads = 256;
constexpr int kAppendTokens = 8;  // new tokens per block: they share one pass over the mask

// dst[i] = src[i], the threads of the block side by side.
template <class T>
__device__ inline void copy_block(T* dst, const T* src, std::size_t count) {
  for (std::size_t i = threadIdx.x; i < count; i += kAppendThreads) dst[i] = src[i];
}

// Rotate `rows` rows of D elements per token. Source and destination are dense from the block's first token on. A
// position or a frequency that the tables do not have is the caller's error, which only the device can see: it becomes
// NaN, which is neither a wild read nor passes for a right answer.
template <class T, class To>
__device__ inline void rotate_block(const TpaAttentionParams& p, To* dst, const T* src, int tokens, int rows,
                                    const int* positions) {
  using A = accum_t<T>;
  const int half = p.key_size / 2, pairs = rows * half;
  const T *cos = static_cast<const T*>(p.cos), *sin = static_cast<const T*>(p.sin);
  for (int i = threadIdx.x; i < tokens * pairs; i += kAppendThreads) {
    const int token = i / pairs, row = i / half, pair = i % half;
    const std::size_t at = static_cast<std::size_t>(row) * p.key_size + pair;
    const std::int64_t column = p.frequencies[pair];
    A c = A(NAN), s = A(NAN);
    if (positions[token] < p.rotary_rows && column >= 0 && column < p.rotary_columns) {
      const std::size_t angle = static_cast<std::size_t>(positions[token]) * p.rotary_columns + column;
      c = to_accum(cos[angle]), s = to_accum(sin[angle]);
    }
    A x1 = to_accum(src[at]), x2 = to_accum(src[at + half]);
    rotate_pair(x1, x2, c, s);
    dst[at] = from_accum<To>(x1);
    dst[at + half] = from_accum<To>(x2);
  }
}

// Grid: (groups of kAppendTokens new tokens, B). `query`: [B,S,R_Q or H,D].
template <class T>
__global__ void __launch_bounds__(kAppendThreads) tpa_append_kernel(const TpaAttentionParams p, accum_t<T>* query) {
  EDGEKIT_SHARED_MEMORY(memory);
  int* counts = reinterpret_cast<int*>(memory);  // [kAppendThreads]
  int* positions = counts + kAppendThreads;      // [kAppendTokens]
  const int first = blockIdx.x * kAppendTokens, batch = blockIdx.y, tid = threadIdx.x;
  const int tokens = p.fresh - first < kAppendTokens ? p.fresh - first : kAppendTokens;
  const int past = p.total - p.fresh;
  const std::int64_t* mask = p.attention_mask + static_cast<std::size_t>(batch) * p.total;

  // Real tokens before the block's first one.
  int count = 0;
#pragma unroll 4
  for (int slot = tid; slot < past + first; slot += kAppendThreads) count += mask[slot] != 0;
  counts[tid] = count;
  __syncthreads();
  for (int width = kAppendThreads / 2; width > 0; width /= 2) {
    if (tid < width) counts[tid] += counts[tid + width];
    __syncthreads();
  }
  if (tid < tokens) {
    count = counts[0];
    for (int token = 0; token <= tid; ++token) count += mask[past + first + token] != 0;
    positions[tid] = position_of(count);
  }
  __syncthreads();

  const std::size_t token = static_cast<std::size_t>(batch) * p.fresh + first;
  const std::size_t slot = static_cast<std::size_t>(batch) * p.present_slots + past + first;
  const int query_rows = p.factored_query ? p.rank_q : p.heads;
  const std::size_t query_row = static_cast<std::size_t>(query_rows) * p.key_size;
  rotate_block<T>(p, query + token * query_row, static_cast<const T*>(p.b_q) + token * query_row, tokens, query_rows,
                  positions);
  const std::size_t key_row = static_cast<std::size_t>(p.rank_k) * p.key_size;
  rotate_block<T>(p, static_cast<T*>(p.present_b_k) + slot * key_row, static_cast<const T*>(p.b_k) + token * key_row,
                  tokens, p.rank_k, positions);
  const std::size_t value_row = static_cast<std::size_t>(p.rank_v) * p.value_size;
  copy_block(static_cast<T*>(p.present_b_v) + slot * value_row, static_cast<const T*>(p.b_v) + token * value_row,
             tokens * value_row);
  if (p.contextual_key) {
    const std::size_t row = static_cast<std::size_t>(p.rank_k) * p.heads;
    copy_block(static_cast<T*>(p.present_a_k) + slot * row, static_cast<const T*>(p.a_k) + token * row, tokens * row);
  }
  if (p.contextual_value) {
    const std::size_t row = static_cast<std::size_t>(p.rank_v) * p.heads;
    copy_block(static_cast<T*>(p.present_a_v) + slot * row, static_cast<const T*>(p.a_v) + token * row, tokens * row);
  }
}

constexpr std::size_t kAppendShared = (kAppendThreads + kAppendTokens) * sizeof(int);

}  // namespace edgekit
