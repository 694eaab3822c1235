// Products of several tokens with a base of 2, 3 or 4 bits, on tensor cores, from the codes as they are stored; and the
// launcher of all products with a base. See README.md.
#pragma once

#include "kernel_base.cuh"

namespace edgekit {

constexpr int kTileTokens = 8;  // of a product of tensor cores
constexpr int kMostTiles = 4;   // such products that share the unpacked codes

// Rows g and g + 8 of a chunk, the 8 inputs from 8 `piece` on: two operands of `multiply_tile`, of 4 inputs from each lane.
template <class T, int Bits>
__device__ inline void codes_of_tile(std::uint32_t (&a)[2][4], const TtSparseLinearParams& p, std::size_t chunk,
                                     std::size_t block, int g, int piece) {
  const std::uint32_t* words = reinterpret_cast<const std::uint32_t*>(p.base.words) + chunk * Bits * kBaseTile;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
    std::uint32_t zero = p.base.zeros ? 0u : 0x00010001u << (Bits - 1);
    if (p.base.zeros) {
#pragma unroll
      for (int b = 0; b < Bits; ++b)
        zero |= (static_cast<std::uint32_t>(p.base.zeros[block * Bits + b]) >> row & 1u) * 0x00010001u << b;
    }
    std::uint32_t word;
    if constexpr (Bits == 3) {
      const std::uint32_t first = words[row], second = words[kBaseTile + row], third = words[2 * kBaseTile + row];
      word = piece == 0 ? first : piece == 1 ? second : piece == 2 ? third : upper_bits(first, second, third);
    } else {
      word = words[piece * Bits / 4 * kBaseTile + row] >> (Bits == 2 ? piece % 2 * 4 : 0);
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const std::uint32_t codes = two_halves<Bits>(word >> (8 * odd), k * Bits, zero);
        if constexpr (std::is_same_v<T, float16>) {
          a[k][2 * odd + half] = codes;
        } else {
#ifdef __CUDA_ARCH__
          const float2 wide = __half22float2(*reinterpret_cast<const __half2*>(&codes));
          const __nv_bfloat162 found = __floats2bfloat162_rn(wide.x, wide.y);
          a[k][2 * odd + half] = *reinterpret_cast<const std::uint32_t*>(&found);
#else
          const auto wide = [&](int which) { return to_accum(float16{static_cast<std::uint16_t>(codes >> which)}); };
          a[k][2 * odd + half] = both_of<T>(wide(0), wide(16));
#endif
        }
      }
    }
  }
}

// The same inputs of one token, as `codes_of_tile` orders them: even ones, then odd ones, of each four.
__device__ inline void inputs_of_tile(std::uint32_t (&b)[2][2], const void* eight) {
  const Vec<std::uint32_t, 4> twos = eight ? *static_cast<const Vec<std::uint32_t, 4>*>(eight) : Vec<std::uint32_t, 4>{};
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const std::uint32_t low = twos.at[2 * k], high = twos.at[2 * k + 1];
#ifdef __CUDA_ARCH__
    b[k][0] = __byte_perm(low, high, 0x5410), b[k][1] = __byte_perm(low, high, 0x7632);
#else
    b[k][0] = (low & 0xffffu) | high << 16, b[k][1] = low >> 16 | (high & 0xffff0000u);
#endif
  }
}

// x Q^T of 8 `Tiles` tokens: into `to` [tokens,O], or where that is null with the bias into y. A block has a tile of 16
// outputs, whose chunks its warps share. Inputs come in eights that are aligned. Grid: (tiles, groups of tokens).
template <class T, int Bits, int Tiles>
__global__ void __launch_bounds__(kBaseWarps * 32, 2) tt_tiles_kernel(const TtSparseLinearParams p, float* to) {
  EDGEKIT_SHARED_MEMORY(memory);
  float* parts = reinterpret_cast<float*>(memory);  // [warps][tokens][kBaseTile]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, g = lane / 4, piece = lane % 4;
  const int tile = blockIdx.x, first = blockIdx.y * kTileTokens * Tiles;
  const int tokens = p.tokens - first < kTileTokens * Tiles ? p.tokens - first : kTileTokens * Tiles;
  const T* x = static_cast<const T*>(p.x) + static_cast<std::size_t>(first) * p.inputs;
  const int of_block = p.base.block / kBaseChunk, blocks = ceil_div(p.inputs, p.base.block);

  float sum[Tiles][4] = {};
#pragma unroll(Tiles == 1 ? 4 : 2)
  for (int c = warp; c < ceil_div(p.inputs, kBaseChunk); c += warps) {
    const std::size_t block = static_cast<std::size_t>(tile) * blocks + c / of_block;
    std::uint32_t a[2][4];
    codes_of_tile<T, Bits>(a, p, static_cast<std::size_t>(tile) * blocks * of_block + c, block, g, piece);
    float scales[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) scales[half] = to_accum(p.base.scales[block * kBaseTile + g + 8 * half]);
    const int k = c * kBaseChunk + 8 * piece;
#pragma unroll
    for (int n = 0; n < Tiles; ++n) {
      const int m = n * kTileTokens + g;
      std::uint32_t b[2][2];
      inputs_of_tile(b, m < tokens && k < p.inputs ? x + static_cast<std::size_t>(m) * p.inputs + k : nullptr);
      float inner[4] = {};
#pragma unroll
      for (int step = 0; step < 2; ++step) multiply_tile<T>(inner, a[step], b[step]);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[n][i] += scales[i / 2] * inner[i];
    }
  }
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int m = n * kTileTokens + 2 * piece + i % 2, row = g + i / 2 * 8;
      parts[(warp * Tiles * kTileTokens + m) * kBaseTile + row] = sum[n][i];
    }
  }
  __syncthreads();
  put_tile<T>(p, to, parts, warps, Tiles * kTileTokens, first, tokens);
}

template <class T, int Bits, int Tiles>
void launch_base_tiles(const TtSparseLinearParams& p, float* to, int warps, cudaStream_t stream) {
  const std::size_t shared = static_cast<std::size_t>(warps) * Tiles * kTileTokens * kBaseTile * sizeof(float);
  const dim3 blocks(ceil_div(p.outputs, kBaseTile), ceil_div(p.tokens, Tiles * kTileTokens));
  EDGEKIT_LAUNCH((tt_tiles_kernel<T, Bits, Tiles>), blocks, warps * 32, shared, stream, p, to);
}

template <class T, int Bits>
void launch_base_of(const TtSparseLinearParams& p, accum_t<T>* to, cudaStream_t stream) {
  const bool aligned = p.inputs % 8 == 0 && reinterpret_cast<std::uintptr_t>(p.x) % 16 == 0;
  const int chunks = ceil_div(p.inputs, kBaseChunk);
  if constexpr (sizeof(T) == 2) {
    if (p.tokens > 1 && aligned) {
      const int warps = chunks < kBaseWarps ? chunks : kBaseWarps;
      if (p.tokens <= kTileTokens) return launch_base_tiles<T, Bits, 1>(p, to, warps, stream);
      return launch_base_tiles<T, Bits, kMostTiles>(p, to, warps, stream);
    }
  }
  const int steps = ceil_div(chunks, kBaseChunks);
  const int warps = steps < kBaseWarps ? steps : kBaseWarps, share = p.tokens == 1 ? 1 : kBaseTokens;
  const std::size_t shared = static_cast<std::size_t>(warps) * share * kBaseTile * sizeof(accum_t<T>);
  const dim3 blocks(ceil_div(p.outputs, kBaseTile), ceil_div(p.tokens, share));
  if (share == 1) {
    EDGEKIT_LAUNCH((tt_base_kernel<T, Bits, 1>), blocks, warps * 32, shared, stream, p, to, aligned);
  } else {
    EDGEKIT_LAUNCH((tt_base_kernel<T, Bits, kBaseTokens>), blocks, warps * 32, shared, stream, p, to, aligned);
  }
}

template <class T>
void launch_base(const TtSparseLinearParams& p, accum_t<T>* to, cudaStream_t stream) {
  if (p.base.bits == 2) {
    launch_base_of<T, 2>(p, to, stream);
  } else if (p.base.bits == 3) {
    launch_base_of<T, 3>(p, to, stream);
  } else {
    launch_base_of<T, 4>(p, to, stream);
  }
}

}  // namespace edgekit
