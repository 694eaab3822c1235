// edgekit::TTSparseLinear in CUDA: x A^T into the workspace, then outputs. See README.md.
#pragma once

#include "../common/device.cuh"
#include "launch.h"

namespace edgekit {

constexpr int kWarp = 32;
constexpr int kLinearWarps = 8, kLinearThreads = kLinearWarps * kWarp;
constexpr int kLinearTokens = 4;   // tokens of a block
constexpr int kLinearOutputs = 32;  // outputs of a block
// Loads that a thread has under way at once: of a row of A (16 bytes each), of B's ranks, of the residual's words.
constexpr int kRowLoads = 4, kRankLoads = 16, kWordLoads = 4;

template <class A>
__device__ inline A sum_of_32(A value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes >>= 1) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

// inner [tokens,R] = x A^T, in the type of the sums: one row of A per warp. Grid: (groups of rows, groups of tokens).
template <class T>
__global__ void __launch_bounds__(kLinearThreads, 2)
    tt_project_kernel(const TtSparseLinearParams p, accum_t<T>* inner, bool by_16_bytes, bool aligned) {
  using A = accum_t<T>;
  using Unit = Vec<T, kUnit<T>>;
  const int lane = threadIdx.x % kWarp, r = blockIdx.x * kLinearWarps + threadIdx.x / kWarp;
  const int first = blockIdx.y * kLinearTokens;
  if (r >= p.rank) return;  // whole warps
  const T* row = static_cast<const T*>(p.a) + static_cast<std::size_t>(r) * p.inputs;
  const T* x = static_cast<const T*>(p.x) + static_cast<std::size_t>(first) * p.inputs;
  A sum[kLinearTokens] = {};
#pragma unroll 1
  for (int chunk = 0; by_16_bytes && chunk < p.inputs; chunk += kRowLoads * kWarp * kUnit<T>) {
    Unit left[kRowLoads];
#pragma unroll
    for (int j = 0; j < kRowLoads; ++j) {
      const int k = chunk + (j * kWarp + lane) * kUnit<T>;
      left[j] = k < p.inputs ? *reinterpret_cast<const Unit*>(row + k) : Unit{};
    }
#pragma unroll
    for (int m = 0; m < kLinearTokens; ++m) {
      if (first + m >= p.tokens) break;
      Unit right[kRowLoads];
#pragma unroll
      for (int j = 0; j < kRowLoads; ++j) {
        const int k = chunk + (j * kWarp + lane) * kUnit<T>;
        const T* from = x + static_cast<std::size_t>(m) * p.inputs + k;
        right[j] = k < p.inputs ? *reinterpret_cast<const Unit*>(from) : Unit{};
      }
#pragma unroll
      for (int j = 0; j < kRowLoads; ++j) {
#pragma unroll
        for (int c = 0; c < kUnit<T>; ++c) sum[m] += to_accum(left[j].at[c]) * to_accum(right[j].at[c]);
      }
    }
  }
  for (int k = lane * 4; !by_16_bytes && k < p.inputs; k += kWarp * 4) {
    A left[4], right[4];
    load4(left, row, k, p.inputs, aligned);
#pragma unroll
    for (int m = 0; m < kLinearTokens; ++m) {
      if (first + m >= p.tokens) break;
      load4(right, x + static_cast<std::size_t>(m) * p.inputs, k, p.inputs, aligned);
#pragma unroll
      for (int c = 0; c < 4; ++c) sum[m] += left[c] * right[c];
    }
  }
#pragma unroll
  for (int m = 0; m < kLinearTokens; ++m) {
    const A total = sum_of_32(sum[m]);
    if (lane == 0 && first + m < p.tokens) inner[static_cast<std::size_t>(first + m) * p.rank + r] = total;
  }
}

// One entry of the residual for all tokens of the block. A column beyond the inputs makes the output NaN.
template <class T>
__device__ inline void add_entry(accum_t<T> (&sum)[kLinearTokens], const TtSparseLinearParams& p, const T* x,
                                 int tokens, std::uint32_t column, T value) {
  using A = accum_t<T>;
  const bool known = column < static_cast<std::uint32_t>(p.inputs);
  const A factor = known ? to_accum(value) : static_cast<A>(NAN);
#pragma unroll
  for (int m = 0; m < kLinearTokens; ++m) {
    if (m < tokens) sum[m] += factor * (known ? to_accum(x[static_cast<std::size_t>(m) * p.inputs + column]) : A(1));
  }
}

// y = inner B + x S^T + bias. Warps share the ranks, each lane with an output of its own; then they share the rows of
// the residual, each lane with entries of its own. Grid: (groups of outputs, groups of tokens).
template <class T>
__global__ void __launch_bounds__(kLinearThreads, 2)
    tt_sparse_kernel(const TtSparseLinearParams p, const accum_t<T>* inner) {
  using A = accum_t<T>;
  EDGEKIT_SHARED_MEMORY(memory);
  A* parts = reinterpret_cast<A*>(memory);  // [warps][tokens][outputs], then the residual's [tokens][outputs]
  A* residual = parts + kLinearWarps * kLinearTokens * kLinearOutputs;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int first = blockIdx.y * kLinearTokens, from = blockIdx.x * kLinearOutputs;
  const int tokens = p.tokens - first < kLinearTokens ? p.tokens - first : kLinearTokens;
  const T* x = static_cast<const T*>(p.x) + static_cast<std::size_t>(first) * p.inputs;

  A sum[kLinearTokens] = {};
  if (from + lane < p.outputs) {
    const T* b = static_cast<const T*>(p.b) + from + lane;
#pragma unroll 1
    for (int start = warp; start < p.rank; start += kLinearWarps * kRankLoads) {
      T value[kRankLoads];
#pragma unroll
      for (int j = 0; j < kRankLoads; ++j) {
        const int r = start + j * kLinearWarps;
        value[j] = r < p.rank ? b[static_cast<std::size_t>(r) * p.outputs] : T{};
      }
#pragma unroll
      for (int m = 0; m < kLinearTokens; ++m) {
        if (m >= tokens) break;
#pragma unroll
        for (int j = 0; j < kRankLoads; ++j) {
          const int r = start + j * kLinearWarps;
          if (r < p.rank) sum[m] += to_accum(value[j]) * inner[static_cast<std::size_t>(first + m) * p.rank + r];
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kLinearTokens; ++m) parts[(warp * kLinearTokens + m) * kLinearOutputs + lane] = sum[m];

  for (int o = warp; o < kLinearOutputs && from + o < p.outputs; o += kLinearWarps) {  // the same for a whole warp
    const int words = p.entries / 2;
    const std::int32_t* columns = p.columns + static_cast<std::size_t>(from + o) * words;
    const Vec<T, 2>* values = static_cast<const Vec<T, 2>*>(p.values) + static_cast<std::size_t>(from + o) * words;
    A found[kLinearTokens] = {};
#pragma unroll 1
    for (int start = lane; start < words; start += kWordLoads * kWarp) {
      std::uint32_t word[kWordLoads];
      Vec<T, 2> two[kWordLoads];
#pragma unroll
      for (int j = 0; j < kWordLoads; ++j) {
        const int z = start + j * kWarp;
        word[j] = z < words ? static_cast<std::uint32_t>(columns[z]) : 0u;
        two[j] = z < words ? values[z] : Vec<T, 2>{};
      }
#pragma unroll
      for (int j = 0; j < kWordLoads; ++j) {
        if (start + j * kWarp >= words) break;
        add_entry(found, p, x, tokens, word[j] & 0xffffu, two[j].at[0]);
        add_entry(found, p, x, tokens, word[j] >> 16, two[j].at[1]);
      }
    }
#pragma unroll
    for (int m = 0; m < kLinearTokens; ++m) {
      const A total = sum_of_32(found[m]);
      if (lane == 0) residual[m * kLinearOutputs + o] = total;
    }
  }
  __syncthreads();

  const int m = threadIdx.x / kLinearOutputs, o = threadIdx.x % kLinearOutputs;
  if (m >= tokens || from + o >= p.outputs) return;
  A total = residual[m * kLinearOutputs + o];
#pragma unroll
  for (int w = 0; w < kLinearWarps; ++w) total += parts[(w * kLinearTokens + m) * kLinearOutputs + o];
  if (p.bias) total += to_accum(static_cast<const T*>(p.bias)[from + o]);
  static_cast<T*>(p.y)[static_cast<std::size_t>(first + m) * p.outputs + from + o] = from_accum<T>(total);
}

template <class T>
cudaError_t launch_linear(const TtSparseLinearParams& p, void* workspace, cudaStream_t stream) {
  using A = accum_t<T>;
  const auto groups = [](int all, int of) { return static_cast<unsigned>(ceil_div(all, of)); };
  A* inner = static_cast<A*>(workspace);
  if (p.rank > 0) {
    const auto start = reinterpret_cast<std::uintptr_t>(p.a) | reinterpret_cast<std::uintptr_t>(p.x);
    const bool aligned = p.inputs % 4 == 0 && start % sizeof(Vec<T, 4>) == 0;
    const bool by_16_bytes = p.inputs % kUnit<T> == 0 && start % 16 == 0;
    const dim3 blocks(groups(p.rank, kLinearWarps), groups(p.tokens, kLinearTokens));
    EDGEKIT_LAUNCH((tt_project_kernel<T>), blocks, kLinearThreads, 0, stream, p, inner, by_16_bytes, aligned);
  }
  const std::size_t shared = (kLinearWarps + 1) * kLinearTokens * kLinearOutputs * sizeof(A);
  const dim3 blocks(groups(p.outputs, kLinearOutputs), groups(p.tokens, kLinearTokens));
  EDGEKIT_LAUNCH((tt_sparse_kernel<T>), blocks, kLinearThreads, shared, stream, p, inner);
  return cudaGetLastError();
}

}  // namespace edgekit
