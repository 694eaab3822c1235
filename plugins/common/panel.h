// The two matrix products of blocked attention on the CPU. A block is up to kBlock cache slots; a panel is a matrix
// whose rows have one column per slot of the block.
#pragma once

#include <algorithm>
#include <cstddef>

#include "simd.h"

namespace edgekit::panel {

constexpr int kBlock = 64;

// Register tile: kTileRows rows by kTileVectors vectors of accumulators.
constexpr int kTileRows = 6, kTileVectors = simd::kRegisters >= 32 ? 4 : 2;
template <class A>
constexpr int kTileLanes = std::min(kTileVectors * simd::kLanes<A>, kBlock);

// Columns that the products below read and write for `slots` slots.
template <class A>
constexpr int padded(int slots) {
  return (slots + kTileLanes<A> - 1) / kTileLanes<A> * kTileLanes<A>;
}

// panel[d][m] = rows[m][offset + d] for d < width and m < slots, and 0 for slots <= m < padded(slots). Whole vectors
// are read where they end before `end`, the end of the rows' memory.
template <class T, class A = accum_t<T>>
void transpose_into(A* panel, const T* const* rows, const T* end, std::ptrdiff_t offset, int width, int slots) {
  constexpr int lanes = simd::kLanes<A>;
  for (int m = 0; m < padded<A>(slots); m += lanes) {
    for (int d = 0; d < width; d += lanes) {
      const int columns = std::min(lanes, width - d);
      simd::Vector<A> tile[lanes];
      if (columns == lanes && m + lanes <= slots) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) tile[i] = simd::load_accum(rows[m + i] + offset + d);
      } else {
        for (int i = 0; i < lanes; ++i) {
          const T* from = rows[std::min(m + i, slots - 1)] + offset + d;
          tile[i] = m + i >= slots      ? simd::Vector<A>{}
                    : end - from >= lanes ? simd::load_accum(from)
                                          : simd::load_accum_part(from, columns);
        }
      }
      simd::transpose<A>(tile);
      if (columns == lanes) {
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) simd::store(panel + (d + j) * kBlock + m, tile[j]);
      } else {
        for (int j = 0; j < columns; ++j) simd::store(panel + (d + j) * kBlock + m, tile[j]);
      }
    }
  }
}

// What is done with a product before it is stored: multiplied per row by a panel's row, or by a number, or not at all;
// then added to what is there, or not.
template <class A>
struct Epilogue {
  const A* panel = nullptr;
  const A* factors = nullptr;
  bool add = false;
};

namespace detail {

template <int Rows, class A>
inline void scores_tile(const A* left, std::ptrdiff_t left_step, int depth, const A* panel, A* out,
                        std::ptrdiff_t out_step, Epilogue<A> epilogue) {
  constexpr int vectors = kTileLanes<A> / simd::kLanes<A>, lanes = simd::kLanes<A>;
  simd::Vector<A> sum[Rows][vectors] = {};
  for (int d = 0; d < depth; ++d) {
    simd::Vector<A> column[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) column[j] = simd::load(panel + d * kBlock + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const A factor = left[i * left_step + d];
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sum[i][j] += column[j] * factor;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      simd::Vector<A> value = sum[i][j];
      if (epilogue.panel) value *= simd::load(epilogue.panel + i * kBlock + j * lanes);
      if (epilogue.factors) value *= epilogue.factors[i];
      A* to = out + i * out_step + j * lanes;
      if (epilogue.add) value += simd::load(to);
      simd::store(to, value);
    }
  }
}

template <int Rows, int Vectors, class A>
inline void values_tile(const A* weights, std::ptrdiff_t weights_step, int slots, const A* const* rows,
                        std::ptrdiff_t offset, A* out, std::ptrdiff_t out_step) {
  constexpr int lanes = simd::kLanes<A>;
  simd::Vector<A> sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) sum[i][j] = simd::load(out + i * out_step + j * lanes);
  for (int m = 0; m < slots; ++m) {
    const A* row = rows[m] + offset;
    simd::Vector<A> value[Vectors];
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) value[j] = simd::load(row + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const A factor = weights[i * weights_step + m];
#pragma GCC unroll 8
      for (int j = 0; j < Vectors; ++j) sum[i][j] += value[j] * factor;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) simd::store(out + i * out_step + j * lanes, sum[i][j]);
}

// Calls tile.template operator()<Rows>(first row) until `rows` rows are done.
template <class Tile>
inline void in_row_tiles(int rows, const Tile& tile) {
  int i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) tile(std::integral_constant<int, kTileRows>{}, i);
  switch (rows - i) {
    case 5: return tile(std::integral_constant<int, 5>{}, i);
    case 4: return tile(std::integral_constant<int, 4>{}, i);
    case 3: return tile(std::integral_constant<int, 3>{}, i);
    case 2: return tile(std::integral_constant<int, 2>{}, i);
    case 1: return tile(std::integral_constant<int, 1>{}, i);
    default: return;
  }
}

}  // namespace detail

// out[i][m] = sum_d left[i][d] panel[d][m] for i < rows, m < padded(slots), then the epilogue. Steps in elements; the
// epilogue's panel and factors start at row 0.
template <class A>
void scores(int rows, int slots, const A* left, std::ptrdiff_t left_step, int depth, const A* panel, A* out,
            std::ptrdiff_t out_step, Epilogue<A> epilogue = {}) {
  for (int m = 0; m < slots; m += kTileLanes<A>) {
    detail::in_row_tiles(rows, [&](auto count, int i) {
      const Epilogue<A> mine{epilogue.panel ? epilogue.panel + i * kBlock + m : nullptr,
                             epilogue.factors ? epilogue.factors + i : nullptr, epilogue.add};
      detail::scores_tile<count>(left + i * left_step, left_step, depth, panel + m, out + i * out_step + m, out_step,
                                 mine);
    });
  }
}

// out[i][e] += sum_{m < slots} weights[i][m] rows[m][offset + e] for i < count, e < width, a multiple of the lanes.
template <class A>
void values(int count, int slots, const A* weights, std::ptrdiff_t weights_step, const A* const* rows,
            std::ptrdiff_t offset, int width, A* out, std::ptrdiff_t out_step) {
  constexpr int lanes = simd::kLanes<A>, wide = kTileVectors * lanes;
  int e = 0;
  for (; e + wide <= width; e += wide)
    detail::in_row_tiles(count, [&](auto rows_here, int i) {
      detail::values_tile<rows_here, kTileVectors>(weights + i * weights_step, weights_step, slots, rows, offset + e,
                                                   out + i * out_step + e, out_step);
    });
  for (; e < width; e += lanes)
    detail::in_row_tiles(count, [&](auto rows_here, int i) {
      detail::values_tile<rows_here, 1>(weights + i * weights_step, weights_step, slots, rows, offset + e,
                                        out + i * out_step + e, out_step);
    });
}

// Turns `visible` scores into weights relative to the running maximum, and the rest up to padded(slots) into 0. Returns
// the factor for what the row has accumulated so far.
template <class A>
A softmax(A* row, int visible, int slots, SoftmaxState<A>& state) {
  constexpr int lanes = simd::kLanes<A>;
  const int end = padded<A>(slots);
  if (visible <= 0) {
    std::fill(row, row + end, A(0));
    return A(1);
  }
  std::fill(row + visible, row + end, minus_infinity<A>());
  simd::Vector<A> most = simd::load(row);
  for (int m = lanes; m < end; m += lanes) {
    const simd::Vector<A> next = simd::load(row + m);
    most = next > most ? next : most;
  }
  A largest = most[0];
  for (int lane = 1; lane < lanes; ++lane) largest = std::max(largest, A(most[lane]));
  const A factor = state.extend(largest);
  simd::Vector<A> total = {};
  for (int m = 0; m < end; m += lanes) {
    const simd::Vector<A> weight = simd::exp(simd::load(row + m) - state.max);
    simd::store(row + m, weight);
    total += weight;
  }
  state.sum += simd::sum<A>(total);
  return factor;
}

}  // namespace edgekit::panel
