// edgekit::TTSparseLinear in CUDA: x A^T and x Q^T into the workspace, then outputs. See README.md.
#pragma once

#include "kernel_numbers.cuh"
#include "kernel_tiles.cuh"

namespace edgekit {

constexpr int kWarp = 32;
constexpr int kLinearWarps = 8, kLinearThreads = kLinearWarps * kWarp;
constexpr int kLinearTokens = 4;   // tokens of a block
constexpr int kLinearOutputs = 32;  // outputs of a block
constexpr int kLinearGroup = 4;     // inputs of a group
static_assert(kLinearThreads == kLinearOutputs * 8);

template <class A>
__device__ inline A sum_of_32(A value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes >>= 1) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

// inner [tokens,R] = x A^T, in the type of the sums. `share` warps, 1, 2, 4 or 8, share a row of A. Grid: (groups of rows,
// groups of tokens).
template <class T>
__global__ void __launch_bounds__(kLinearThreads, 4)
    tt_project_kernel(const TtSparseLinearParams p, accum_t<T>* inner, int share, bool aligned) {
  using A = accum_t<T>;
  EDGEKIT_SHARED_MEMORY(memory);
  A* parts = reinterpret_cast<A*>(memory);  // [warps][tokens]
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, rows = kLinearWarps / share;
  const int r = blockIdx.x * rows + warp / share, first = blockIdx.y * kLinearTokens;
  const T* x = static_cast<const T*>(p.x) + static_cast<std::size_t>(first) * p.inputs;
  A sum[kLinearTokens] = {};
  const int end = r < p.rank ? p.inputs : 0;
#pragma unroll 2
  for (int k = (warp % share * kWarp + lane) * 8; k < end; k += share * kWarp * 8) {
    A left[8], right[4];
    numbers_at<T>(left, p.a, static_cast<std::size_t>(r) * p.inputs + k, p.inputs - k, aligned);
#pragma unroll
    for (int m = 0; m < kLinearTokens; ++m) {
      if (first + m >= p.tokens) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        load4(right, x + static_cast<std::size_t>(m) * p.inputs, k + half * 4, p.inputs, aligned);
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[m] += left[half * 4 + c] * right[c];
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kLinearTokens; ++m) {
    const A total = sum_of_32(sum[m]);
    if (lane == 0) parts[warp * kLinearTokens + m] = total;
  }
  __syncthreads();

  const int row = blockIdx.x * rows + static_cast<int>(threadIdx.x) / kLinearTokens, m = threadIdx.x % kLinearTokens;
  if (static_cast<int>(threadIdx.x) >= rows * kLinearTokens || row >= p.rank || first + m >= p.tokens) return;
  A total = A(0);
  for (int w = 0; w < share; ++w) total += parts[(threadIdx.x / kLinearTokens * share + w) * kLinearTokens + m];
  inner[static_cast<std::size_t>(first + m) * p.rank + row] = total;
}

// Rows of the residual, for the tokens of a block. Of columns and groups eight lanes take a row, each of them entries of its
// own; of a bitmap a whole warp does.
template <class T>
struct SparseRow {
  using A = accum_t<T>;
  const TtSparseLinearParams& p;
  const T* x;  // of the first token
  int tokens, lane;
  A (&sum)[kLinearTokens];

  // One entry; a column beyond the inputs makes the output NaN.
  __device__ void add(std::uint32_t column, std::int64_t entry) {
    const bool known = column < static_cast<std::uint32_t>(p.inputs);
    const A factor = known ? number_at<T>(p.values, entry) : static_cast<A>(NAN);
#pragma unroll
    for (int m = 0; m < kLinearTokens; ++m) {
      if (m < tokens) sum[m] += factor * (known ? to_accum(x[static_cast<std::size_t>(m) * p.inputs + column]) : A(1));
    }
  }

  // Entries start to end - 1, by this lane of eight. Four at once: their loads do not wait for one another.
  __device__ void by_eight(std::int64_t start, std::int64_t end) {
    for (std::int64_t e = start + lane % 8; e < end; e += 32) {
      const int count = static_cast<int>((end - e + 7) / 8);
      std::uint32_t columns[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) columns[c] = c < count ? column_of(e + 8 * c, start) : 0u;
      A factors[4];
      numbers_by<T, 4>(factors, p.values, e, 8, count);
      T inputs[kLinearTokens][4];
#pragma unroll
      for (int m = 0; m < kLinearTokens; ++m) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const bool there = m < tokens && c < count && columns[c] < static_cast<std::uint32_t>(p.inputs);
          inputs[m][c] = there ? x[static_cast<std::size_t>(m) * p.inputs + columns[c]] : T{};
        }
      }
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (c >= count) break;
        if (columns[c] >= static_cast<std::uint32_t>(p.inputs)) factors[c] = static_cast<A>(NAN);
#pragma unroll
        for (int m = 0; m < kLinearTokens; ++m) sum[m] += factors[c] * to_accum(inputs[m][c]);
      }
    }
  }

  __device__ std::uint32_t column_of(std::int64_t entry, std::int64_t start) const {
    if (p.residual == TtResidual::columns) return reinterpret_cast<const std::uint16_t*>(p.positions)[entry];
    const std::uint32_t place = static_cast<std::uint32_t>(p.positions[entry / 16]) >> (entry % 16 * 2) & 3u;
    return static_cast<std::uint32_t>(entry - start) / static_cast<std::uint32_t>(p.kept) * kLinearGroup + place;
  }

  // 32 bits of the bitmap per lane; what the lanes before hold tells which values are whose.
  __device__ void by_bits(int o, std::int64_t start, std::int64_t end) {
    std::int64_t entry = start;
    for (int from = 0; from < p.inputs; from += kWarp * 32) {
      const int column = from + lane * 32;
      std::uint32_t bits = column < p.inputs ? bits_at(o, column) : 0u;
      int before = __popc(bits);
#pragma unroll
      for (int lanes = 1; lanes < kWarp; lanes <<= 1) {
        const int other = __shfl_up_sync(0xffffffffu, before, lanes);
        if (lane >= lanes) before += other;
      }
      std::int64_t mine = entry + before - __popc(bits);
      entry += __shfl_sync(0xffffffffu, before, kWarp - 1);
      for (; bits && mine < end; bits &= bits - 1, ++mine) add(column + __ffs(static_cast<int>(bits)) - 1, mine);
    }
    if (entry != end && lane == 0) unknown();
  }

  __device__ std::uint32_t bits_at(int o, int column) const {
    const std::size_t all = static_cast<std::size_t>(p.outputs) * p.inputs;
    const std::size_t at = static_cast<std::size_t>(o) * p.inputs + column, word = at / 32, shift = at % 32;
    const std::uint32_t* words = reinterpret_cast<const std::uint32_t*>(p.positions);
    std::uint32_t bits = words[word] >> shift;
    if (shift != 0 && (word + 1) * 32 < all) bits |= words[word + 1] << (32 - shift);
    const int rest = p.inputs - column;
    return rest < 32 ? bits & ((1u << rest) - 1u) : bits;
  }

  __device__ void unknown() {
#pragma unroll
    for (int m = 0; m < kLinearTokens; ++m) sum[m] = static_cast<A>(NAN);
  }

  // Row o; one that does not start and end among the entries makes its outputs NaN.
  __device__ void run(int o) {
    if (p.residual == TtResidual::groups) {
      const std::int64_t each = static_cast<std::int64_t>(p.inputs / kLinearGroup) * p.kept;
      return by_eight(o * each, (o + 1) * each);
    }
    const std::int64_t start = p.starts[o], end = o + 1 < p.outputs ? p.starts[o + 1] : p.entries;
    if (start < 0 || end < start || end > p.entries) return unknown();
    if (p.residual == TtResidual::columns) {
      by_eight(start, end);
    } else {
      by_bits(o, start, end);
    }
  }
};

// y = inner B + x S^T + base + bias. Warps share the ranks, each lane with an output of its own; then they share the rows of
// the residual. Grid: (groups of outputs, groups of tokens).
template <class T>
__global__ void __launch_bounds__(kLinearThreads, 4)
    tt_sparse_kernel(const TtSparseLinearParams p, const accum_t<T>* inner, const accum_t<T>* base) {
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
    for (int r = warp; r < p.rank; r += 4 * kLinearWarps) {
      const int count = ceil_div(p.rank - r, kLinearWarps);
      A values[4];
      const std::size_t at = static_cast<std::size_t>(r) * p.outputs + from + lane;
      numbers_by<T, 4>(values, p.b, at, static_cast<std::size_t>(kLinearWarps) * p.outputs, count);
#pragma unroll
      for (int m = 0; m < kLinearTokens; ++m) {
        const A* of_token = inner + static_cast<std::size_t>(first + m) * p.rank + r;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (m < tokens && c < count) sum[m] += values[c] * of_token[c * kLinearWarps];
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kLinearTokens; ++m) parts[(warp * kLinearTokens + m) * kLinearOutputs + lane] = sum[m];

  if (p.residual == TtResidual::bitmap || p.residual == TtResidual::nothing) {
    for (int o = warp; o < kLinearOutputs && from + o < p.outputs; o += kLinearWarps) {  // the same for a whole warp
      A found[kLinearTokens] = {};
      if (p.residual != TtResidual::nothing) SparseRow<T>{p, x, tokens, lane, found}.run(from + o);
#pragma unroll
      for (int m = 0; m < kLinearTokens; ++m) {
        const A total = sum_of_32(found[m]);
        if (lane == 0) residual[m * kLinearOutputs + o] = total;
      }
    }
  } else {
    const int o = threadIdx.x / 8;
    A found[kLinearTokens] = {};
    if (from + o < p.outputs) SparseRow<T>{p, x, tokens, lane, found}.run(from + o);
#pragma unroll
    for (int m = 0; m < kLinearTokens; ++m) {
      const A total = sum_of_8(found[m]);
      if (lane % 8 == 0) residual[m * kLinearOutputs + o] = total;
    }
  }
  __syncthreads();

  const int m = threadIdx.x / kLinearOutputs, o = threadIdx.x % kLinearOutputs;
  if (m >= tokens || from + o >= p.outputs) return;
  A total = residual[m * kLinearOutputs + o];
#pragma unroll
  for (int w = 0; w < kLinearWarps; ++w) total += parts[(w * kLinearTokens + m) * kLinearOutputs + o];
  const std::size_t at = static_cast<std::size_t>(first + m) * p.outputs + from + o;
  if (base) total += base[at];
  if (p.bias) total += to_accum(static_cast<const T*>(p.bias)[from + o]);
  static_cast<T*>(p.y)[at] = from_accum<T>(total);
}

// Sums of the base that the workspace holds: none where they are outputs already.
inline std::size_t base_floats(const TtSparseLinearParams& p) {
  const bool alone = p.rank == 0 && p.residual == TtResidual::nothing;
  return p.base.bits == 0 || alone ? 0 : static_cast<std::size_t>(p.tokens) * p.outputs;
}

template <class T>
cudaError_t launch_linear(const TtSparseLinearParams& p, void* workspace, cudaStream_t stream) {
  using A = accum_t<T>;
  const auto groups = [](int all, int of) { return static_cast<unsigned>(ceil_div(all, of)); };
  A* base = base_floats(p) > 0 ? static_cast<A*>(workspace) : nullptr;
  A* inner = static_cast<A*>(workspace) + base_floats(p);
  if (p.base.bits != 0) {
    launch_base<T>(p, base, stream);
    if (!base) return cudaGetLastError();
  }
  if (p.rank > 0) {
    const auto start = reinterpret_cast<std::uintptr_t>(p.a.data) | reinterpret_cast<std::uintptr_t>(p.x);
    const bool aligned = p.inputs % 8 == 0 && start % 16 == 0;
    int share = 1;  // a warp's step is 256 inputs
    while (share < kLinearWarps && share * kWarp * 8 < p.inputs) share *= 2;
    const dim3 blocks(groups(p.rank, kLinearWarps / share), groups(p.tokens, kLinearTokens));
    const std::size_t parts = kLinearWarps * kLinearTokens * sizeof(A);
    EDGEKIT_LAUNCH((tt_project_kernel<T>), blocks, kLinearThreads, parts, stream, p, inner, share, aligned);
  }
  const std::size_t shared = (kLinearWarps + 1) * kLinearTokens * kLinearOutputs * sizeof(A);
  const dim3 blocks(groups(p.outputs, kLinearOutputs), groups(p.tokens, kLinearTokens));
  EDGEKIT_LAUNCH((tt_sparse_kernel<T>), blocks, kLinearThreads, shared, stream, p, inner, base);
  return cudaGetLastError();
}

}  // namespace edgekit
