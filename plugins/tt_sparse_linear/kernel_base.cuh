// Products with a base of 2, 3 or 4 bits, from the codes as they are stored. See README.md.
#pragma once

#include "../common/mma.cuh"
#include "launch.h"

namespace edgekit {

constexpr int kBaseTile = 16, kBaseChunk = 32;  // outputs and inputs that codes are grouped by
constexpr int kBaseRows = 4;                    // of a tile, which a lane multiplies: a load of 16 bytes
constexpr int kBaseTokens = 4;                  // which share the unpacked codes
constexpr int kBaseWarps = 8;                   // of a block, at most
constexpr int kBaseChunks = 8;                  // of a warp at once
static_assert(kBaseTile / kBaseRows * kBaseChunks == 32);

// Two codes, each less its row's zero point, as float16: of the fields of `Bits` bits from `shift` on in the bytes 0 and 2
// of `bytes`. `zero` has the zero point in both halves. As the lowest bits of a float16, a code c makes 1024 into
// 1024 + 2^shift c; all that follows is exact.
template <int Bits>
__device__ inline std::uint32_t two_halves(std::uint32_t bytes, int shift, std::uint32_t zero) {
  constexpr std::uint32_t both = 0x00010001u;
  const std::uint32_t mask = ((1u << Bits) - 1u) << shift;
  const std::uint32_t codes = (bytes & mask * both) | 0x6400u * both;
  const std::uint32_t less = (0xe400u - 0x400u * shift) * both | zero << shift;  // -(1024 / 2^shift + zero)
#ifdef __CUDA_ARCH__
  const __half2 part = __half2half2(__ushort_as_half(static_cast<unsigned short>(0x3c00 - 0x400 * shift)));
  const __half2 found =
      __hfma2(*reinterpret_cast<const __half2*>(&codes), part, *reinterpret_cast<const __half2*>(&less));
  return *reinterpret_cast<const std::uint32_t*>(&found);
#else
  const auto half = [](std::uint32_t bits) { return to_accum(float16{static_cast<std::uint16_t>(bits)}); };
  const float part = half(0x3c00 - 0x400 * shift);
  return both_of<float16>(half(codes) * part + half(less), half(codes >> 16) * part + half(less >> 16));
#endif
}

template <int Bits, class A>
__device__ inline void two_codes(A& even, A& odd, std::uint32_t bytes, int shift, std::uint32_t zero) {
  const std::uint32_t found = two_halves<Bits>(bytes, shift, zero);
#ifdef __CUDA_ARCH__
  const float2 wide = __half22float2(*reinterpret_cast<const __half2*>(&found));
  even = wide.x, odd = wide.y;
#else
  even = to_accum(float16{static_cast<std::uint16_t>(found)});
  odd = to_accum(float16{static_cast<std::uint16_t>(found >> 16)});
#endif
}

// The two upper bits of every byte of three words: the codes of 3 bits that are in no word of their own, put where the
// others have theirs.
__device__ inline std::uint32_t upper_bits(std::uint32_t first, std::uint32_t second, std::uint32_t third) {
  return (first >> 6 & 0x03030303u) | (third >> 4 & 0x04040404u) | (second >> 3 & 0x18181818u) |
         (third >> 2 & 0x20202020u);
}

// Words of a row of a chunk -> what a weight's scale is multiplied by, of inputs 8 `piece` to 8 `piece` + 7.
template <int Bits, class A>
__device__ inline void eight_codes(A (&to)[8], const std::uint32_t (&words)[Bits], int piece, std::uint32_t zero) {
  std::uint32_t word;
  if constexpr (Bits == 3) {
    if (piece < 3) {
      word = words[piece];
    } else {
      word = upper_bits(words[0], words[1], words[2]);
    }
  } else {
    word = words[piece * Bits / 4];
  }
  const int shift = Bits == 2 ? piece % 2 * 4 : 0;
  two_codes<Bits>(to[0], to[2], word, shift, zero);
  two_codes<Bits>(to[1], to[3], word >> 8, shift, zero);
  two_codes<Bits>(to[4], to[6], word, shift + Bits, zero);
  two_codes<Bits>(to[5], to[7], word >> 8, shift + Bits, zero);
}

// Inputs k to k + 7, 0 beyond `width`. `aligned`: rows begin at multiples of 16 bytes and of 8 inputs.
template <class T>
__device__ inline void eight_inputs(accum_t<T> (&to)[8], const T* row, int k, int width, bool aligned) {
  constexpr int unit = kUnit<T>;
  if (aligned && k + 8 <= width) {
    const Vec<T, unit>* units = reinterpret_cast<const Vec<T, unit>*>(row + k);
#pragma unroll
    for (int c = 0; c < 8; ++c) to[c] = to_accum(units[c / unit].at[c % unit]);
  } else {
#pragma unroll
    for (int c = 0; c < 8; ++c) to[c] = k + c < width ? to_accum(row[k + c]) : accum_t<T>(0);
  }
}

// sum[m][r] += the products of chunk c with rows `row` to `row` + 3 of a tile.
template <class T, int Bits, int Tokens>
__device__ inline void add_chunk(accum_t<T> (&sum)[Tokens][kBaseRows], const TtSparseLinearParams& p, const T* x,
                                 int tokens, int tile, int row, int c, bool aligned) {
  using A = accum_t<T>;
  const int of_block = p.base.block / kBaseChunk, blocks = ceil_div(p.inputs, p.base.block);
  const std::size_t chunk = static_cast<std::size_t>(tile) * blocks * of_block + c;
  const std::size_t block = static_cast<std::size_t>(tile) * blocks + c / of_block;
  Vec<std::uint32_t, kBaseRows> stored[Bits];
#pragma unroll
  for (int w = 0; w < Bits; ++w)
    stored[w] = reinterpret_cast<const Vec<std::uint32_t, kBaseRows>*>(p.base.words)[((chunk * Bits + w) * kBaseTile + row) / kBaseRows];
  const Vec<float16, kBaseRows> scales =
      reinterpret_cast<const Vec<float16, kBaseRows>*>(p.base.scales)[(block * kBaseTile + row) / kBaseRows];
  std::uint32_t zeros[kBaseRows];
#pragma unroll
  for (int r = 0; r < kBaseRows; ++r) zeros[r] = p.base.zeros ? 0u : 0x00010001u << (Bits - 1);
  if (p.base.zeros) {
#pragma unroll
    for (int b = 0; b < Bits; ++b) {
      const std::uint32_t plane = static_cast<std::uint32_t>(p.base.zeros[block * Bits + b]) >> row;
#pragma unroll
      for (int r = 0; r < kBaseRows; ++r) zeros[r] |= (plane >> r & 1u) * 0x00010001u << b;
    }
  }
  A inner[Tokens][kBaseRows] = {};
#pragma unroll
  for (int piece = 0; piece < kBaseChunk / 8; ++piece) {
    A inputs[Tokens][8];
#pragma unroll
    for (int m = 0; m < Tokens; ++m) {
      if (m < tokens)
        eight_inputs(inputs[m], x + static_cast<std::size_t>(m) * p.inputs, c * kBaseChunk + piece * 8, p.inputs, aligned);
    }
#pragma unroll
    for (int r = 0; r < kBaseRows; ++r) {
      std::uint32_t words[Bits];
#pragma unroll
      for (int w = 0; w < Bits; ++w) words[w] = stored[w].at[r];
      A codes[8];
      eight_codes<Bits>(codes, words, piece, zeros[r]);
#pragma unroll
      for (int m = 0; m < Tokens; ++m) {
        if (m >= tokens) break;
#pragma unroll
        for (int k = 0; k < 8; ++k) inner[m][r] += codes[k] * inputs[m][k];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kBaseRows; ++r) {
    const A scale = static_cast<A>(to_accum(scales.at[r]));
#pragma unroll
    for (int m = 0; m < Tokens; ++m) {
      if (m < tokens) sum[m][r] += scale * inner[m][r];
    }
  }
}

// What the warps of a block have summed, [warps][each][kBaseTile], for `tokens` tokens from `first` on, together: into `to`
// [tokens,O], or where that is null with the bias into y.
template <class T>
__device__ inline void put_tile(const TtSparseLinearParams& p, accum_t<T>* to, const accum_t<T>* parts, int warps, int each,
                                int first, int tokens) {
  using A = accum_t<T>;
  for (int i = threadIdx.x; i < tokens * kBaseTile; i += blockDim.x) {
    const int o = static_cast<int>(blockIdx.x) * kBaseTile + i % kBaseTile;
    if (o >= p.outputs) continue;
    A total = A(0);
    for (int w = 0; w < warps; ++w) total += parts[w * each * kBaseTile + i];
    const std::size_t at = static_cast<std::size_t>(first + i / kBaseTile) * p.outputs + o;
    if (to) {
      to[at] = total;
    } else {
      if (p.bias) total += to_accum(static_cast<const T*>(p.bias)[o]);
      static_cast<T*>(p.y)[at] = from_accum<T>(total);
    }
  }
}

// x Q^T: into `to` [tokens,O], or where that is null with the bias into y. A block has a tile of 16 outputs; each warp
// takes 8 chunks at once, each lane one of them and 4 outputs. Grid: (tiles, groups of tokens).
template <class T, int Bits, int Tokens>
__global__ void __launch_bounds__(kBaseWarps * 32, 2)
    tt_base_kernel(const TtSparseLinearParams p, accum_t<T>* to, bool aligned) {
  using A = accum_t<T>;
  EDGEKIT_SHARED_MEMORY(memory);
  A* parts = reinterpret_cast<A*>(memory);  // [warps][Tokens][kBaseTile]
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int tile = blockIdx.x, first = blockIdx.y * Tokens, row = lane % kBaseRows * kBaseRows;
  const int tokens = p.tokens - first < Tokens ? p.tokens - first : Tokens;
  const T* x = static_cast<const T*>(p.x) + static_cast<std::size_t>(first) * p.inputs;

  A sum[Tokens][kBaseRows] = {};
  for (int c = warp * kBaseChunks + lane / kBaseRows; c < ceil_div(p.inputs, kBaseChunk); c += warps * kBaseChunks)
    add_chunk<T, Bits, Tokens>(sum, p, x, tokens, tile, row, c, aligned);
#pragma unroll
  for (int m = 0; m < Tokens; ++m) {
#pragma unroll
    for (int r = 0; r < kBaseRows; ++r) {
      A total = sum[m][r];
#pragma unroll
      for (int lanes = kBaseRows; lanes < 32; lanes <<= 1) total += __shfl_xor_sync(0xffffffffu, total, lanes);
      if (lane < kBaseRows) parts[(warp * Tokens + m) * kBaseTile + row + r] = total;
    }
  }
  __syncthreads();

  put_tile<T>(p, to, parts, warps, Tokens, first, tokens);
}

}  // namespace edgekit
