// Products with the two factors of a contracted train.
#pragma once

#include <algorithm>
#include <cstddef>

#include "../common/simd.h"

namespace edgekit::tt_sparse {

namespace detail {

// inner[m][r] = <a[r], x[m]> for Rows rows of a and Tokens tokens.
template <int Rows, int Tokens, class T, class A>
inline void dot_tile(const T* a, const A* x, int inputs, A* inner, int rank) {
  constexpr int lanes = simd::kLanes<A>;
  simd::Vector<A> sum[Rows][Tokens] = {};
  const auto add = [&](int k, const auto& of_a, const auto& of_x) {
    simd::Vector<A> right[Tokens];
#pragma GCC unroll 4
    for (int j = 0; j < Tokens; ++j) right[j] = of_x(x + static_cast<std::ptrdiff_t>(j) * inputs + k);
#pragma GCC unroll 4
    for (int i = 0; i < Rows; ++i) {
      const simd::Vector<A> left = of_a(a + static_cast<std::ptrdiff_t>(i) * inputs + k);
#pragma GCC unroll 4
      for (int j = 0; j < Tokens; ++j) sum[i][j] += left * right[j];
    }
  };
  int k = 0;
  const auto whole = [](const auto* from) { return simd::load_accum(from); };
  for (; k + lanes <= inputs; k += lanes) add(k, whole, whole);
  const int rest = inputs - k;
  const auto part = [rest](const auto* from) { return simd::load_accum_part(from, rest); };
  if (rest > 0) add(k, part, part);
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < Tokens; ++j) inner[static_cast<std::ptrdiff_t>(j) * rank + i] = simd::sum<A>(sum[i][j]);
}

template <int Rows, class T, class A>
inline void dots(const T* a, const A* x, int tokens, int inputs, A* inner, int rank) {
  constexpr int wide = simd::kRegisters >= 32 ? 4 : 2;
  int m = 0;
  const auto at = [&](int token) { return x + static_cast<std::ptrdiff_t>(token) * inputs; };
  for (; m + wide <= tokens; m += wide) dot_tile<Rows, wide>(a, at(m), inputs, inner + m * rank, rank);
  for (; m < tokens; ++m) dot_tile<Rows, 1>(a, at(m), inputs, inner + m * rank, rank);
}

}  // namespace detail

// inner[m][r] = <a[r], x[m]> for m < tokens and first <= r < last; a [rank, inputs], x [tokens, inputs].
template <class T, class A = accum_t<T>>
void project(const T* a, const A* x, int tokens, int inputs, int first, int last, A* inner, int rank) {
  int r = first;
  const auto row = [&](int of) { return a + static_cast<std::ptrdiff_t>(of) * inputs; };
  for (; r + 4 <= last; r += 4) detail::dots<4>(row(r), x, tokens, inputs, inner + r, rank);
  for (; r < last; ++r) detail::dots<1>(row(r), x, tokens, inputs, inner + r, rank);
}

namespace detail {

// Columns o to end of some tokens: four ranks at once for one vector after another, whose sums stay in memory.
template <class T, class A>
inline void expand_thin(const T* b, const A* inner, int tokens, int rank, int outputs, int o, int end, A* sums,
                        int step) {
  constexpr int lanes = simd::kLanes<A>;
  const auto add = [&](int r, auto ranks) {
    constexpr int count = decltype(ranks)::value;
    for (int at = o; at < end; at += lanes) {
      simd::Vector<A> rows[count];
#pragma GCC unroll 4
      for (int i = 0; i < count; ++i) {
        const T* from = b + static_cast<std::ptrdiff_t>(r + i) * outputs + at;
        rows[i] = end - at >= lanes ? simd::load_accum(from) : simd::load_accum_part(from, end - at);
      }
      for (int m = 0; m < tokens; ++m) {
        const A* factors = inner + static_cast<std::ptrdiff_t>(m) * rank + r;
        simd::Vector<A> sum = simd::load(sums + static_cast<std::ptrdiff_t>(m) * step + at);
#pragma GCC unroll 4
        for (int i = 0; i < count; ++i) sum += rows[i] * factors[i];
        simd::store(sums + static_cast<std::ptrdiff_t>(m) * step + at, sum);
      }
    }
  };
  int r = 0;
  for (; r + 4 <= rank; r += 4) add(r, std::integral_constant<int, 4>{});
  for (; r < rank; ++r) add(r, std::integral_constant<int, 1>{});
}

// Four vectors of Tokens tokens, their sums in registers.
template <int Tokens, class T, class A>
inline void expand_tile(const T* b, const A* inner, int rank, int outputs, A* sums, int step) {
  constexpr int lanes = simd::kLanes<A>, vectors = 4;
  simd::Vector<A> sum[Tokens][vectors];
  for (int m = 0; m < Tokens; ++m)
    for (int i = 0; i < vectors; ++i) sum[m][i] = simd::load(sums + m * step + i * lanes);
  for (int r = 0; r < rank; ++r) {
    const T* row = b + static_cast<std::ptrdiff_t>(r) * outputs;
    simd::Vector<A> values[vectors];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) values[i] = simd::load_accum(row + i * lanes);
#pragma GCC unroll 4
    for (int m = 0; m < Tokens; ++m) {
      const A factor = inner[static_cast<std::ptrdiff_t>(m) * rank + r];
#pragma GCC unroll 4
      for (int i = 0; i < vectors; ++i) sum[m][i] += values[i] * factor;
    }
  }
  for (int m = 0; m < Tokens; ++m)
    for (int i = 0; i < vectors; ++i) simd::store(sums + m * step + i * lanes, sum[m][i]);
}

}  // namespace detail

// sums[m][o] += sum_r inner[m][r] b[r][first + o] for m < tokens and o < width; rows of sums are `step` apart, a
// multiple of the lanes.
template <class T, class A = accum_t<T>>
void expand(const T* b, const A* inner, int tokens, int rank, int outputs, int first, int width, A* sums, int step) {
  constexpr int wide = simd::kRegisters >= 32 ? 4 : 2, tile = 4 * simd::kLanes<A>;
  const int many = tokens / wide * wide, whole = many ? width / tile * tile : 0;
  b += first;
  for (int o = 0; o < whole; o += tile)
    for (int m = 0; m < many; m += wide)
      detail::expand_tile<wide>(b + o, inner + static_cast<std::ptrdiff_t>(m) * rank, rank, outputs,
                                sums + static_cast<std::ptrdiff_t>(m) * step + o, step);
  if (many > 0 && whole < width) detail::expand_thin(b, inner, many, rank, outputs, whole, width, sums, step);
  if (many < tokens)
    detail::expand_thin(b, inner + static_cast<std::ptrdiff_t>(many) * rank, tokens - many, rank, outputs, 0, width,
                        sums + static_cast<std::ptrdiff_t>(many) * step, step);
}

}  // namespace edgekit::tt_sparse
