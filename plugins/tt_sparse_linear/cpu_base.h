// Products with a base of 2, 3 or 4 bits. Tokens are rounded to integers of 16 or 24 bits, block by block, whose bytes
// are multiplied by the codes: sums over a block are exact, and a scale is applied to each.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu_base_lanes.h"
#include "cpu_numbers.h"

namespace edgekit::tt_sparse {

constexpr int kTile = 16, kChunk = 32;  // outputs and inputs that codes are grouped by
constexpr int kMostOfBlock = 128;       // inputs to a scale

// Tensors of the specification.
struct Base {
  int bits = 0, block = 0, inputs = 0;
  const std::uint8_t* words = nullptr;
  const float16* scales = nullptr;
  const std::uint16_t* zeros = nullptr;  // null: 2^(bits-1) everywhere

  int blocks() const { return (inputs + block - 1) / block; }
  std::size_t padded() const { return static_cast<std::size_t>(blocks()) * block; }
  // Of a tile's codes.
  std::size_t tile_bytes() const { return padded() / kChunk * bits * kTile * 4; }
};

// Some tokens as integers: x = scale sum_d 256^d digit_d, digits from -128 to 127, of which 32 inputs' lie together.
// Where an input is not finite, its block's scale is NaN.
struct Rounded {
  int digits = 2;                // 2, or 3: as exact as sums in float32 are
  int stride = 0;                // bytes of a token
  std::int8_t* bytes = nullptr;  // [tokens][chunk][digit][kChunk]
  float* scales = nullptr;       // [tokens][blocks]
  std::int32_t* sums = nullptr;  // [tokens][blocks][digit]: the negated sum of a block's digits
};

namespace detail {

// Digits of a block.
template <int Digits>
inline void round_block(const float* x, int block, std::int8_t* bytes, float* scale, std::int32_t* sums) {
  std::uint32_t most = 0;
  for (int k = 0; k < block; ++k) {
    std::uint32_t bits;
    std::memcpy(&bits, x + k, 4);
    most = std::max(most, bits & 0x7fffffffu);
  }
  float largest;
  std::memcpy(&largest, &most, 4);
  if (most == 0 || most >= 0x7f800000u) {
    std::memset(bytes, 0, static_cast<unsigned>(block) * Digits);
    *scale = most ? NAN : 0.0f;
    std::fill(sums, sums + Digits, 0);
    return;
  }
  // A little less than the digits hold, so that rounding does not exceed it; 1e37: no scale becomes subnormal.
  const float factor = std::min((Digits == 3 ? 8355000.0f : 32600.0f) / largest, 1e37f);
  *scale = 1.0f / factor;
  lanes::Ints totals[Digits];
  for (int d = 0; d < Digits; ++d) totals[d] = lanes::all(0);
  for (int first = 0; first < block; first += kChunk, bytes += Digits * kChunk) {
    for (int k = 0; k < kChunk; k += lanes::kCount) {
      lanes::Ints left = lanes::whole(lanes::times(lanes::load(x + first + k), lanes::all(factor)));
      for (int d = 0; d < Digits; ++d) {
        totals[d] = lanes::add(totals[d], left);
        left = lanes::digits(left, bytes + d * kChunk + k);
      }
    }
  }
  std::int32_t upper = 0;
  for (int d = Digits; d-- > 0;) {
    const std::int32_t total = -lanes::sum(totals[d]);
    sums[d] = total - 256 * upper;
    upper = total;
  }
}

// sums[m][o] += of outputs `lane` of `Tiles` tiles from `tile` on, for tokens first to first + Tokens - 1.
template <int Bits, int Digits, int Tokens, int Tiles>
inline void base_tiles(const Base& base, const Rounded& x, int tile, int lane, int first, float* sums,
                       std::ptrdiff_t step) {
  using namespace lanes;
  const int blocks = base.blocks(), chunks = base.block / kChunk;
  constexpr std::size_t word = kTile * 4;
  const std::uint8_t* words[Tiles];
  const float16* scales[Tiles];
  const std::uint16_t* zeros[Tiles];
  for (int i = 0; i < Tiles; ++i) {
    const std::size_t number = static_cast<std::size_t>(tile) + i;
    words[i] = base.words + number * base.tile_bytes() + 4 * lane;
    scales[i] = base.scales + number * blocks * kTile + lane;
    zeros[i] = base.zeros ? base.zeros + number * blocks * Bits : nullptr;
  }
  const std::int8_t* digits = x.bytes + static_cast<std::ptrdiff_t>(first) * x.stride;
  const float* of_block = x.scales + static_cast<std::ptrdiff_t>(first) * blocks;
  const std::int32_t* totals = x.sums + static_cast<std::ptrdiff_t>(first) * blocks * Digits;
  Floats found[Tokens][Tiles];
  for (int m = 0; m < Tokens; ++m)
    for (int i = 0; i < Tiles; ++i) found[m][i] = load(sums + m * step + i * kTile);
  for (int b = 0; b < blocks; ++b) {
    Ints inner[Tokens][Tiles][Digits];
    for (int i = 0; i < Tiles; ++i) {
      const Ints zero = base.zeros ? planes<Bits>(zeros[i], lane) : all(1 << (Bits - 1));
      zeros[i] += base.zeros ? Bits : 0;
      for (int m = 0; m < Tokens; ++m)
        for (int d = 0; d < Digits; ++d)
          inner[m][i][d] = times(zero, all(totals[(static_cast<std::ptrdiff_t>(m) * blocks + b) * Digits + d]));
    }
    for (int c = 0; c < chunks; ++c, digits += Digits * kChunk) {
      Ints codes[Tiles][8];
#pragma GCC unroll 4
      for (int i = 0; i < Tiles; ++i, words[i - 1] += Bits * word) unpack<Bits>(words[i], word, codes[i]);
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g)
#pragma GCC unroll 8
        for (int m = 0; m < Tokens; ++m)
#pragma GCC unroll 3
          for (int d = 0; d < Digits; ++d) {
            std::int32_t four;
            std::memcpy(&four, digits + static_cast<std::ptrdiff_t>(m) * x.stride + d * kChunk + 4 * g, 4);
            const Ints of_all = all(four);
#pragma GCC unroll 4
            for (int i = 0; i < Tiles; ++i) inner[m][i][d] = dot(inner[m][i][d], codes[i][g], of_all);
          }
    }
    for (int i = 0; i < Tiles; ++i, scales[i - 1] += kTile) {
      const Floats scale = half(scales[i]);
      for (int m = 0; m < Tokens; ++m) {
        // The upper two digits stay below 2^26; the lowest of three is as small as what their conversion may lose.
        Floats sum = real(add(times_256(inner[m][i][Digits - 1]), inner[m][i][Digits - 2]));
        if constexpr (Digits == 3) sum = fused(sum, all(256.0f), real(inner[m][i][0]));
        found[m][i] = fused(times(scale, all(of_block[static_cast<std::ptrdiff_t>(m) * blocks + b])), sum, found[m][i]);
      }
    }
  }
  for (int m = 0; m < Tokens; ++m)
    for (int i = 0; i < Tiles; ++i) store(sums + m * step + i * kTile, found[m][i]);
}

// The same for all tokens and tiles: many registers hold the sums of more at once.
template <int Bits, int Digits>
inline void base_outputs(const Base& base, const Rounded& x, int tokens, int tile, int tiles, float* sums,
                         std::ptrdiff_t step) {
  constexpr bool many = simd::kRegisters >= 32;
  for (int i = 0; i < tiles;) {
    const int pair = i + 2 <= tiles ? 2 : 1;
    for (int lane = 0; lane < kTile; lane += lanes::kCount) {
      float* to = sums + static_cast<std::ptrdiff_t>(i) * kTile + lane;
      int m = 0;
      if constexpr (many) {
        for (; m + 4 <= tokens; m += 4)
          for (int k = 0; k < pair; ++k)
            base_tiles<Bits, Digits, 4, 1>(base, x, tile + i + k, lane, m, to + m * step + k * kTile, step);
        for (; m + 2 <= tokens && pair == 2; m += 2)
          base_tiles<Bits, Digits, 2, 2>(base, x, tile + i, lane, m, to + m * step, step);
      }
      for (; m + 2 <= tokens; m += 2)
        for (int k = 0; k < pair; ++k)
          base_tiles<Bits, Digits, 2, 1>(base, x, tile + i + k, lane, m, to + m * step + k * kTile, step);
      for (; m < tokens; ++m) {
        if (pair == 2)
          base_tiles<Bits, Digits, 1, 2>(base, x, tile + i, lane, m, to + m * step, step);
        else
          base_tiles<Bits, Digits, 1, 1>(base, x, tile + i, lane, m, to + m * step, step);
      }
    }
    i += pair;
  }
}

}  // namespace detail

// Blocks `first` to `last - 1` of a token's digits; x: [inputs].
template <class T>
void round_token(const Base& base, const T* x, int first, int last, int token, const Rounded& to) {
  alignas(64) float wide[kMostOfBlock];
  for (int b = first; b < last; ++b) {
    const int begin = b * base.block, count = std::min(base.block, base.inputs - begin);
    detail::convert(x + begin, count, wide);
    std::fill(wide + count, wide + base.block, 0.0f);
    const std::ptrdiff_t place = static_cast<std::ptrdiff_t>(token) * base.blocks() + b;
    std::int8_t* bytes = to.bytes + static_cast<std::ptrdiff_t>(token) * to.stride + begin * to.digits;
    const auto round = to.digits == 3 ? detail::round_block<3> : detail::round_block<2>;
    round(wide, base.block, bytes, to.scales + place, to.sums + place * to.digits);
  }
}

// sums[m][o] += <base of output 16 tile + o, token m> for tokens below `tokens` and o below 16 tiles.
inline void add_base(const Base& base, const Rounded& x, int tokens, int tile, int tiles, float* sums,
                     std::ptrdiff_t step) {
  const auto add = [&](auto bits) {
    constexpr int of_code = decltype(bits)::value;
    if (x.digits == 3)
      detail::base_outputs<of_code, 3>(base, x, tokens, tile, tiles, sums, step);
    else
      detail::base_outputs<of_code, 2>(base, x, tokens, tile, tiles, sums, step);
  };
  if (base.bits == 2)
    add(std::integral_constant<int, 2>{});
  else if (base.bits == 3)
    add(std::integral_constant<int, 3>{});
  else
    add(std::integral_constant<int, 4>{});
}

// The code of an input of a row of a tile's chunk.
inline int code_of(const std::uint8_t* chunk, int bits, int row, int input) {
  const auto byte = [&](int word) { return chunk[(word * kTile + row) * 4 + input % 4]; };
  const int four = input / 4, fields = 8 / bits;
  if (bits != 3 || four < 6) return byte(four / fields) >> four % fields * bits & ((1 << bits) - 1);
  return byte(four - 6) >> 6 | (byte(2) >> four & 1) << 2;
}

// The same in double precision, from numbers: for comparisons, not for speed.
inline void add_base(const Base& base, const double* x, std::ptrdiff_t stride, int tokens, int tile, int tiles,
                     double* sums, std::ptrdiff_t step) {
  const int blocks = base.blocks();
  for (int i = 0; i < tiles * kTile; ++i) {
    const std::size_t number = static_cast<std::size_t>(tile) + i / kTile;
    const int row = i % kTile;
    for (int b = 0; b < blocks; ++b) {
      const std::size_t place = number * blocks + b;
      const double scale = to_accum(base.scales[place * kTile + row]);
      int zero = base.zeros ? 0 : 1 << (base.bits - 1);
      for (int k = 0; k < base.bits && base.zeros; ++k) zero |= (base.zeros[place * base.bits + k] >> row & 1) << k;
      for (int k = b * base.block; k < std::min(base.inputs, (b + 1) * base.block); ++k) {
        const std::uint8_t* chunk = base.words + number * base.tile_bytes() + std::size_t(k / kChunk) * base.bits * kTile * 4;
        const double weight = scale * (code_of(chunk, base.bits, row, k % kChunk) - zero);
        for (int m = 0; m < tokens; ++m) sums[m * step + i] += weight * x[m * stride + k];
      }
    }
  }
}

}  // namespace edgekit::tt_sparse
