// Products with the two factors of a contracted train.
#pragma once

#include <algorithm>
#include <cstddef>

#include "cpu_numbers.h"

namespace edgekit::tt_sparse {

namespace detail {

// inner[m][r] = <a[r], x[m]> for Rows rows of a and Tokens tokens.
template <int Rows, int Tokens, class T, class A>
inline void dot_tile(const T* a, const A* x, int stride, int inputs, A* inner, int rank) {
  constexpr int lanes = simd::kLanes<A>;
  simd::Vector<A> sum[Rows][Tokens] = {};
  const auto add = [&](int k, const auto& of_a, const auto& of_x) {
    simd::Vector<A> right[Tokens];
#pragma GCC unroll 4
    for (int j = 0; j < Tokens; ++j) right[j] = of_x(x + static_cast<std::ptrdiff_t>(j) * stride + k);
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
inline void dots(const T* a, const A* x, int stride, int tokens, int inputs, A* inner, int rank) {
  constexpr int wide = simd::kRegisters >= 32 ? 4 : 2;
  int m = 0;
  const auto at = [&](int token) { return x + static_cast<std::ptrdiff_t>(token) * stride; };
  for (; m + wide <= tokens; m += wide) dot_tile<Rows, wide>(a, at(m), stride, inputs, inner + m * rank, rank);
  for (; m < tokens; ++m) dot_tile<Rows, 1>(a, at(m), stride, inputs, inner + m * rank, rank);
}

}  // namespace detail

// inner[m][r] = <a[r], x[m]> for m < tokens and first <= r < last; a [rank, inputs], rows of x are
// `stride` apart. `room` holds what four rows need.
template <class T, class A = accum_t<T>>
void project(const Numbers<T>& a, const A* x, int stride, int tokens, int inputs, int first, int last, A* inner,
             int rank, A* room) {
  const std::size_t width = inputs, all = width * rank;
  int r = first;
  for (; r + 4 <= last; r += 4)
    detail::dots<4>(widened(a, all, r * width, 4 * width, room), x, stride, tokens, inputs, inner + r, rank);
  for (; r < last; ++r) detail::dots<1>(widened(a, all, r * width, width, room), x, stride, tokens, inputs, inner + r, rank);
}

namespace detail {

constexpr int kRanks = 8;  // that are taken at once

// Columns o to end of some tokens: a few ranks at once for one vector after another, whose sums stay in memory.
template <int Ranks, class A>
inline void expand_thin(const A* const* rows, const A* inner, int tokens, int rank, int o, int end, A* sums, int step) {
  constexpr int lanes = simd::kLanes<A>;
  for (int at = o; at < end; at += lanes) {
    simd::Vector<A> values[Ranks];
#pragma GCC unroll 8
    for (int i = 0; i < Ranks; ++i)
      values[i] = end - at >= lanes ? simd::load(rows[i] + at) : simd::load_accum_part(rows[i] + at, end - at);
    for (int m = 0; m < tokens; ++m) {
      const A* factors = inner + static_cast<std::ptrdiff_t>(m) * rank;
      simd::Vector<A> sum = simd::load(sums + static_cast<std::ptrdiff_t>(m) * step + at);
#pragma GCC unroll 8
      for (int i = 0; i < Ranks; ++i) sum += values[i] * factors[i];
      simd::store(sums + static_cast<std::ptrdiff_t>(m) * step + at, sum);
    }
  }
}

}  // namespace detail

// sums[m][o] += sum_r inner[m][r] b[r][first + o] for m < tokens and o < width; rows of sums are `step` apart, a
// multiple of the lanes. `room` holds what kRanks rows of that width need.
template <class T, class A = accum_t<T>>
void expand(const Numbers<T>& b, const A* inner, int tokens, int rank, int outputs, int first, int width, A* sums,
            int step, A* room) {
  const std::size_t all = static_cast<std::size_t>(rank) * outputs;
  for (int r = 0; r < rank; r += detail::kRanks) {
    const int count = std::min(detail::kRanks, rank - r);
    const A* rows[detail::kRanks];
    for (int i = 0; i < count; ++i)
      rows[i] = widened(b, all, static_cast<std::size_t>(r + i) * outputs + first, width,
                        room + i * widened_room(width));
    if (count == detail::kRanks) {
      detail::expand_thin<detail::kRanks>(rows, inner + r, tokens, rank, 0, width, sums, step);
    } else {
      for (int i = 0; i < count; ++i)
        detail::expand_thin<1>(rows + i, inner + r + i, tokens, rank, 0, width, sums, step);
    }
  }
}

}  // namespace edgekit::tt_sparse
