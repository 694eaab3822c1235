// Products of one token with a pair's codes, without writing the numbers down. AVX-512 only: elsewhere, and where a
// block of numbers with one scale goes on in the next row, `project` and `expand` make the numbers first.
#pragma once

#include "cpu_numbers.h"

namespace edgekit::tt_sparse {

// Whether rows of `side` numbers, from column `first` on, are whole blocks of codes.
template <class T>
inline bool whole_blocks([[maybe_unused]] const Numbers<T>& numbers, [[maybe_unused]] int side,
                         [[maybe_unused]] int first = 0) {
#if defined(__AVX512F__)
  return std::is_same_v<accum_t<T>, float> && (numbers.bits == 8 || numbers.bits == 4) && side % numbers.block == 0 &&
         first % numbers.block == 0;
#else
  return false;
#endif
}

#if defined(__AVX512F__)
namespace detail {

// inner[r] = <a[r], x> for first <= r < last.
template <int Bits, class T>
void project_codes(const Numbers<T>& a, const float* x, int inputs, int first, int last, float* inner) {
  constexpr int bytes = kUnit * Bits / 8;
  const int blocks = inputs / a.block, units = a.block / kUnit;
  for (int r = first; r < last; ++r) {
    const std::uint8_t* codes =
        static_cast<const std::uint8_t*>(a.data) + static_cast<std::size_t>(r) * inputs / 8 * Bits;
    const float16* scales = a.scales + static_cast<std::size_t>(r) * blocks;
    const float* at = x;
    __m512 sum = _mm512_setzero_ps();
    for (int block = 0; block < blocks; ++block) {
      __m512 even = _mm512_setzero_ps(), odd = even;
      int unit = 0;
      for (; unit + 2 <= units; unit += 2, at += 2 * kUnit, codes += 2 * bytes) {
        even = _mm512_fmadd_ps(codes_of<Bits>(codes), _mm512_loadu_ps(at), even);
        odd = _mm512_fmadd_ps(codes_of<Bits>(codes + bytes), _mm512_loadu_ps(at + kUnit), odd);
      }
      for (; unit < units; ++unit, at += kUnit, codes += bytes)
        even = _mm512_fmadd_ps(codes_of<Bits>(codes), _mm512_loadu_ps(at), even);
      sum = _mm512_fmadd_ps(_mm512_add_ps(even, odd), _mm512_set1_ps(scale_of(scales[block])), sum);
    }
    inner[r] = simd::sum<float>(simd::bits_as<simd::Vector<float>>(sum));
  }
}

// sums[o] += sum over `Rows` ranks from r on of inner[r] b[r][first + o] for o < width.
template <int Bits, int Rows, class T>
void expand_rows(const Numbers<T>& b, const float* inner, int r, int outputs, int first, int width, float* sums) {
  constexpr int bytes = kUnit * Bits / 8;
  const std::uint8_t* codes[Rows];
  const float16* scales[Rows];
  for (int i = 0; i < Rows; ++i) {
    const std::size_t start = static_cast<std::size_t>(r + i) * outputs + first;
    codes[i] = static_cast<const std::uint8_t*>(b.data) + start / 8 * Bits;
    scales[i] = b.scales + start / b.block;
  }
  for (int o = 0, block = 0; o < width; o += b.block, ++block) {
    __m512 factor[Rows];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) factor[i] = _mm512_set1_ps(scale_of(scales[i][block]) * inner[r + i]);
    for (int at = o; at < o + b.block; at += kUnit) {
      __m512 sum = _mm512_loadu_ps(sums + at);
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i, codes[i - 1] += bytes)
        sum = _mm512_fmadd_ps(codes_of<Bits>(codes[i]), factor[i], sum);
      _mm512_storeu_ps(sums + at, sum);
    }
  }
}

}  // namespace detail
#endif

// As `project`, for one token and whole blocks.
template <class T>
void project_one([[maybe_unused]] const Numbers<T>& a, [[maybe_unused]] const accum_t<T>* x,
                 [[maybe_unused]] int inputs, [[maybe_unused]] int first, [[maybe_unused]] int last,
                 [[maybe_unused]] accum_t<T>* inner) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<accum_t<T>, float>) {
    if (a.bits == 8)
      detail::project_codes<8>(a, x, inputs, first, last, inner);
    else
      detail::project_codes<4>(a, x, inputs, first, last, inner);
  }
#endif
}

// As `expand`, for one token and a width of whole blocks.
template <class T>
void expand_one([[maybe_unused]] const Numbers<T>& b, [[maybe_unused]] const accum_t<T>* inner,
                [[maybe_unused]] int rank, [[maybe_unused]] int outputs, [[maybe_unused]] int first,
                [[maybe_unused]] int width, [[maybe_unused]] accum_t<T>* sums) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<accum_t<T>, float>) {
    int r = 0;
    const auto add = [&](auto rows) {
      constexpr int count = decltype(rows)::value;
      for (; r + count <= rank; r += count) {
        if (b.bits == 8)
          detail::expand_rows<8, count>(b, inner, r, outputs, first, width, sums);
        else
          detail::expand_rows<4, count>(b, inner, r, outputs, first, width, sums);
      }
    };
    add(std::integral_constant<int, 8>{});
    add(std::integral_constant<int, 1>{});
  }
#endif
}

}  // namespace edgekit::tt_sparse
