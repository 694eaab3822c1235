// The layer on the CPU: what the tokens share is made first, then every task makes some outputs.
#pragma once

#include "../common/arena.h"
#include "cpu_pair.h"
#include "cpu_residual.h"

namespace edgekit::tt_sparse {

// Tensors of the specification, dense and row-major; a, b and bias may be null.
template <class T>
struct Problem {
  int tokens, inputs, outputs, rank, entries;
  const T *x, *a, *b, *values, *bias;
  const std::uint16_t* columns;  // [outputs, entries]
  T* y;
};

constexpr int kTokens = 64;      // at once
constexpr int kGathering = 2;    // so few tokens gather their inputs
constexpr int kWork = 1 << 16;   // products that are worth a task

// Some tokens of a problem, `count` of them from `first`.
template <class T>
class Tokens {
  using A = accum_t<T>;

 public:
  Tokens(const Problem<T>& problem, int first, int count) : p(problem), first(first), count(count) {
    constexpr int lanes = simd::kLanes<A>;
    padded = count <= kGathering ? 0 : (count + lanes - 1) / lanes * lanes;
    thread_local Arena arena;
    const std::size_t inputs = p.inputs;
    arena.reset(Arena::bytes<A>(inputs * count) + Arena::bytes<A>(inputs * padded) +
                Arena::bytes<A>(static_cast<std::size_t>(p.rank) * count));
    wide = arena.take<A>(inputs * count);
    across = arena.take<A>(inputs * padded);
    inner = arena.take<A>(static_cast<std::size_t>(p.rank) * count);
  }

  template <class Run>
  void run(const Run& parallel) {
    const int columns = in_units(kWork / 8 / count, 64, p.inputs);
    parallel(parts(p.inputs, columns), [&](std::size_t i) { widen(static_cast<int>(i) * columns, columns); });
    if (p.rank > 0) {
      const int rows = in_units(kWork / (count * p.inputs), 4, p.rank);
      parallel(parts(p.rank, rows), [&](std::size_t i) {
        const int from = static_cast<int>(i) * rows;
        project(p.a, wide, count, p.inputs, from, std::min(p.rank, from + rows), inner, p.rank);
      });
    }
    const int width = in_units(std::min(kWork / (count * (p.rank + p.entries)), kTokens * 512 / count), 64, p.outputs);
    parallel(parts(p.outputs, width), [&](std::size_t i) {
      const int from = static_cast<int>(i) * width;
      outputs(from, std::min(width, p.outputs - from));
    });
  }

 private:
  // `wanted` in whole units, at least one, not more than hold `all`.
  static int in_units(int wanted, int unit, int all) {
    return std::clamp(wanted / unit, 1, (all + unit - 1) / unit) * unit;
  }
  static std::size_t parts(int all, int part) { return static_cast<std::size_t>((all + part - 1) / part); }

  // The tokens in the type of the sums, row by row and, where they are many, side by side.
  void widen(int from, int columns) {
    const int end = std::min(p.inputs, from + columns);
    for (int m = 0; m < count; ++m) {
      const T* row = p.x + (static_cast<std::ptrdiff_t>(first) + m) * p.inputs;
      A* to = wide + static_cast<std::ptrdiff_t>(m) * p.inputs;
      for (int k = from; k < end; ++k) to[k] = to_accum(row[k]);
    }
    for (int k = from; k < end && padded; ++k) {
      A* to = across + static_cast<std::ptrdiff_t>(k) * padded;
      for (int m = 0; m < count; ++m) to[m] = wide[static_cast<std::ptrdiff_t>(m) * p.inputs + k];
      std::fill(to + count, to + padded, A(0));
    }
  }

  void outputs(int from, int width) const {
    constexpr int lanes = simd::kLanes<A>;
    const int step = (width + lanes - 1) / lanes * lanes;
    thread_local Arena arena;
    arena.reset(Arena::bytes<A>(static_cast<std::size_t>(step) * count) + Arena::bytes<A>(kTokens + lanes));
    A* sums = arena.take<A>(static_cast<std::size_t>(step) * count);
    A* of_row = arena.take<A>(kTokens + lanes);
    for (int m = 0; m < count; ++m)
      for (int o = 0; o < step; ++o) sums[m * step + o] = p.bias && o < width ? to_accum(p.bias[from + o]) : A(0);
    if (p.rank > 0) expand(p.b, inner, count, p.rank, p.outputs, from, width, sums, step);
    for (int o = 0; o < width; ++o) {
      const std::ptrdiff_t start = (static_cast<std::ptrdiff_t>(from) + o) * p.entries;
      check_columns(p.columns + start, p.entries, p.inputs, from + o);
      if (padded) {
        side_by_side(across, padded, p.columns + start, p.values + start, p.entries, of_row);
      } else {
        for (int m = 0; m < count; ++m)
          of_row[m] = gathered(wide + static_cast<std::ptrdiff_t>(m) * p.inputs, p.columns + start, p.values + start,
                               p.entries);
      }
      for (int m = 0; m < count; ++m) sums[m * step + o] += of_row[m];
    }
    for (int m = 0; m < count; ++m) {
      T* to = p.y + (static_cast<std::ptrdiff_t>(first) + m) * p.outputs + from;
      for (int o = 0; o < width; ++o) to[o] = from_accum<T>(sums[m * step + o]);
    }
  }

  const Problem<T>& p;
  int first, count, padded;
  A *wide, *across, *inner;  // [count, K], [K, padded], [count, R]
};

template <class T, class Run>
void linear(const Problem<T>& p, const Run& parallel) {
  for (int first = 0; first < p.tokens; first += kTokens)
    Tokens<T>(p, first, std::min(kTokens, p.tokens - first)).run(parallel);
}

}  // namespace edgekit::tt_sparse
