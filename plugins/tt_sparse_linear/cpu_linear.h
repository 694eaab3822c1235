// The layer on the CPU: what the tokens share is made first, then every task makes some outputs.
#pragma once

#include "../common/arena.h"
#include "cpu_base.h"
#include "cpu_codes.h"
#include "cpu_pair.h"
#include "cpu_residual.h"

namespace edgekit::tt_sparse {

// Tensors of the specification, dense and row-major; bias may be null.
template <class T>
struct Problem {
  int tokens, inputs, outputs, rank, entries, residual, kept;
  Base base;   // bits 0: there is none
  int digits;  // bytes of an input that it multiplies
  Numbers<T> a, b, values;
  const T *x, *bias;
  const std::int32_t* starts;  // [outputs]; null for groups
  const void* positions;
  T* y;
};

constexpr int kTokens = 64;      // at once
constexpr int kGathering = 2;    // so few tokens read their inputs where they are
constexpr int kWork = 1 << 16;   // products that are worth a task
constexpr int kSpread = 4;       // rows of the residual that are made dense at once
constexpr int kWorthSpreading = 12;  // where more than one weight in so many is kept
constexpr int kOfBase = 8;       // weights of a base that are multiplied in the time of one product of another kind
constexpr int kValues = 2048;    // values that are made at once, but for one row

// Some tokens of a problem, `count` of them from `first`.
template <class T>
class Tokens {
  using A = accum_t<T>;
  static constexpr int lanes = simd::kLanes<A>;

 public:
  Tokens(const Problem<T>& problem, int first, int count) : p(problem), first(first), count(count) {
    padded = count <= kGathering ? 0 : (count + lanes - 1) / lanes * lanes;
    stride = pieces_of(p.inputs) * kPiece;
    rounds = p.base.bits && std::is_same_v<A, float>;
    const std::size_t blocks = rounds ? static_cast<std::size_t>(p.base.blocks()) * count : 0;
    rounded.digits = sizeof(T) == 4 ? p.digits : 2;  // 16-bit types hold less than two
    const std::size_t bytes = blocks * p.base.block * rounded.digits;
    thread_local Arena arena;
    arena.reset(Arena::bytes<A>(static_cast<std::size_t>(stride) * count) +
                Arena::bytes<A>(static_cast<std::size_t>(p.inputs) * padded) +
                Arena::bytes<A>(static_cast<std::size_t>(p.rank) * count) + Arena::bytes<std::int8_t>(bytes) +
                Arena::bytes<float>(blocks) + Arena::bytes<std::int32_t>(blocks * rounded.digits));
    wide = arena.take<A>(static_cast<std::size_t>(stride) * count);
    across = arena.take<A>(static_cast<std::size_t>(p.inputs) * padded);
    inner = arena.take<A>(static_cast<std::size_t>(p.rank) * count);
    rounded.stride = static_cast<int>(bytes / count);
    rounded.bytes = arena.take<std::int8_t>(bytes);
    rounded.scales = arena.take<float>(blocks);
    rounded.sums = arena.take<std::int32_t>(blocks * rounded.digits);
  }

  template <class Run>
  void run(const Run& parallel) {
    const int columns = in_units(kWork / 8 / count, 64, p.inputs);
    if (p.rank > 0 || p.residual != kNothing || !rounds)
      parallel(parts(p.inputs, columns), [&](std::size_t i) { widen(static_cast<int>(i) * columns, columns); });
    if constexpr (std::is_same_v<A, float>) {
      const int blocks = rounds ? std::max(1, columns / p.base.block) : 1;
      parallel(rounds ? parts(p.base.blocks(), blocks) : 0, [&](std::size_t i) {
        const int from = static_cast<int>(i) * blocks, end = std::min(p.base.blocks(), from + blocks);
        for (int m = 0; m < count; ++m)
          round_token(p.base, p.x + (static_cast<std::ptrdiff_t>(first) + m) * p.inputs, from, end, m, rounded);
      });
    }
    if (p.rank > 0) {
      const int rows = in_units(kWork / (count * p.inputs), 4, p.rank);
      parallel(parts(p.rank, rows), [&](std::size_t i) {
        const int from = static_cast<int>(i) * rows;
        if (count == 1 && whole_blocks(p.a, p.inputs))
          return project_one(p.a, wide, p.inputs, from, std::min(p.rank, from + rows), inner);
        thread_local Arena arena;
        const std::size_t room = widened_room(static_cast<std::size_t>(p.inputs) * 4);
        arena.reset(Arena::bytes<A>(room));
        project(p.a, wide, stride, count, p.inputs, from, std::min(p.rank, from + rows), inner, p.rank,
                arena.take<A>(room));
      });
    }
    const int of_row = p.rank + (p.base.bits ? p.inputs / kOfBase : 0) +
                       std::max(p.entries / p.outputs, p.residual > kColumns ? p.inputs / 8 : 1);
    const int width = in_units(std::min(kWork / (count * of_row), kTokens * 512 / count), 64, p.outputs);
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
      A* to = wide + static_cast<std::ptrdiff_t>(m) * stride;
      for (int k = from; k < end; ++k) to[k] = to_accum(row[k]);
      if (end == p.inputs) std::fill(to + end, to + stride, A(0));
    }
    for (int k = from; k < end && padded; ++k) {
      A* to = across + static_cast<std::ptrdiff_t>(k) * padded;
      for (int m = 0; m < count; ++m) to[m] = wide[static_cast<std::ptrdiff_t>(m) * stride + k];
      std::fill(to + count, to + padded, A(0));
    }
  }

  void outputs(int from, int width) const {
    const int step = (width + kTile - 1) / kTile * kTile;
    const std::size_t size = static_cast<std::size_t>(step) * count;
    const std::size_t room = p.rank > 0 ? detail::kRanks * widened_room(width) : 0;
    thread_local Arena arena;
    arena.reset(Arena::bytes<A>(size) + Arena::bytes<A>(room));
    A* sums = arena.take<A>(size);
    std::fill(sums, sums + size, A(0));
    for (int m = 0; m < count && p.bias; ++m) detail::convert(p.bias + from, width, sums + m * step);
    if (p.rank > 0 && count == 1 && whole_blocks(p.b, p.outputs, from) && width % p.b.block == 0)
      expand_one(p.b, inner, p.rank, p.outputs, from, width, sums);
    else if (p.rank > 0)
      expand(p.b, inner, count, p.rank, p.outputs, from, width, sums, step, arena.take<A>(room));
    if (p.base.bits) of_base(from / kTile, step / kTile, sums, step);
    if (p.residual != kNothing) add_residual(from, width, sums, step);
    for (int m = 0; m < count; ++m) {
      T* to = p.y + (static_cast<std::ptrdiff_t>(first) + m) * p.outputs + from;
      for (int o = 0; o < width; ++o) to[o] = from_accum<T>(sums[m * step + o]);
    }
  }

  void of_base(int tile, int tiles, A* sums, int step) const {
    if constexpr (std::is_same_v<A, float>)
      add_base(p.base, rounded, count, tile, tiles, sums, step);
    else
      add_base(p.base, wide, stride, count, tile, tiles, sums, step);
  }

  // How many entries the rows before row o have.
  std::int64_t start_of(int o) const {
    if (p.residual == kGroups) return static_cast<std::int64_t>(p.inputs / kGroup) * p.kept * o;
    return o < p.outputs ? p.starts[o] : p.entries;
  }

  std::int64_t entries_of(int o) const {
    const std::int64_t start = start_of(o), end = start_of(o + 1);
    if (start < 0 || end < start || end > p.entries || end - start > p.inputs || (o == 0 && start != 0))
      throw ort::Refusal("starts must begin with 0 and rise to E = " + std::to_string(p.entries) + " by at most K",
                         "rows " + std::to_string(o) + " and " + std::to_string(o + 1) + " start at " +
                             std::to_string(start) + " and " + std::to_string(end));
    return end - start;
  }

  void add_residual(int from, int width, A* sums, int step) const {
    const std::size_t pieces = pieces_of(p.inputs), most = std::max(kValues, p.inputs);
    thread_local Arena arena;
    arena.reset(Arena::bytes<A>(kTokens + lanes) + Arena::bytes<A>(widened_room(most) + kPiece) +
                Arena::bytes<std::uint16_t>(pieces) + Arena::bytes<std::int32_t>(p.inputs + 2 * kPiece) +
                Arena::bytes<A>(spreads() ? kSpread * (static_cast<std::size_t>(stride) + count) : 0));
    A* of_row = arena.take<A>(kTokens + lanes);
    A* room = arena.take<A>(widened_room(most) + kPiece);
    std::uint16_t* mask = arena.take<std::uint16_t>(pieces);
    std::int32_t* columns = arena.take<std::int32_t>(p.inputs + 2 * kPiece);
    A* dense = arena.take<A>(spreads() ? kSpread * (static_cast<std::size_t>(stride) + count) : 0);
    for (int o = 0; o < width;) {
      int end = o;
      std::int64_t all = 0;
      for (std::int64_t next; end < width && ((next = entries_of(from + end)) + all <= kValues || end == o); ++end)
        all += next;
      const std::size_t start = start_of(from + o);
      if (of_codes_in_groups()) {
        for (; o < end; ++o) sums[o] += codes_in_groups(from + o);
        continue;
      }
      const A* values = widened(p.values, p.entries, start, all, room);
      if (p.values.bits == 0 && values != room) values = std::copy(values, values + all, room) - all;
      if (p.residual == kColumns) check_columns(from + o, start, all);
      if (spreads()) {
        spread_rows(from, o, end, values, mask, dense, sums, step);
        o = end;
      }
      if (p.residual == kColumns && !padded) {
        const std::uint16_t* where = static_cast<const std::uint16_t*>(p.positions);
        for (int m = 0; m < count; ++m) {
          const A* x = wide + static_cast<std::ptrdiff_t>(m) * stride;
          const A* of_entries = values - start;
          std::int64_t begin = start;
          for (int i = o; i < end; ++i) {
            const std::int64_t next = start_of(from + i + 1);
            sums[m * step + i] += gathered(x, where + begin, of_entries + begin, static_cast<int>(next - begin));
            begin = next;
          }
        }
        o = end;
      }
      for (; o < end; ++o) {
        const std::int64_t begin = start_of(from + o);
        const int entries = static_cast<int>(start_of(from + o + 1) - begin);
        if (p.residual == kColumns) {
          by_columns(static_cast<const std::uint16_t*>(p.positions) + begin, values, entries, of_row);
        } else {
          by_mask(from + o, mask, columns, values, entries, of_row);
        }
        values += entries;
        for (int m = 0; m < count; ++m) sums[m * step + o] += of_row[m];
      }
    }
  }

  // Whether many tokens are better multiplied by whole rows than by one entry after the other.
  bool spreads() const {
#if defined(__AVX512F__)
    const std::int64_t weights = static_cast<std::int64_t>(p.outputs) * p.inputs;
    return std::is_same_v<A, float> && padded && p.residual > kColumns && std::int64_t{p.entries} * kWorthSpreading > weights;
#else
    return false;
#endif
  }

  // Whether one token is multiplied by 2:4 codes as they are stored.
  bool of_codes_in_groups() const {
#if defined(__AVX512F__)
    return std::is_same_v<A, float> && count == 1 && p.residual == kGroups && p.kept == 2 &&
           p.inputs % (2 * kPiece) == 0 && (p.values.bits == 8 || p.values.bits == 4);
#else
    return false;
#endif
  }

  A codes_in_groups([[maybe_unused]] int o) const {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<A, float>) {
      const std::uint8_t* places = static_cast<const std::uint8_t*>(p.positions) + std::size_t(o) * (p.inputs / 8);
      const std::uint8_t* codes = static_cast<const std::uint8_t*>(p.values.data);
      const std::size_t first = static_cast<std::size_t>(o) * (p.inputs / 2), units = p.values.block / kUnit;
      const float16* scales = p.values.scales;
      std::size_t block = first / p.values.block, left = units - first / kUnit % units;
      __m512 scale = _mm512_set1_ps(detail::scale_of(scales[block]));
      const auto scaled = [&](__m512 found) {
        found = _mm512_mul_ps(found, scale);
        if (--left == 0 && (++block) * p.values.block < static_cast<std::size_t>(p.entries)) {
          left = units;
          scale = _mm512_set1_ps(detail::scale_of(scales[block]));
        }
        return found;
      };
      if (p.values.bits == 8)
        return two_of_four(wide, places, p.inputs,
                           [&](int i) { return scaled(detail::codes_of<8>(codes + first + i * kUnit)); });
      return two_of_four(wide, places, p.inputs,
                         [&](int i) { return scaled(detail::codes_of<4>(codes + first / 2 + i * (kUnit / 2))); });
    }
#endif
    return A(0);
  }

  // Rows from + o to from + end - 1, made dense, a few at a time; behind them `dense` has room for their sums.
  void spread_rows([[maybe_unused]] int from, [[maybe_unused]] int o, [[maybe_unused]] int end,
                   [[maybe_unused]] const A* values, [[maybe_unused]] std::uint16_t* mask, [[maybe_unused]] A* dense,
                   [[maybe_unused]] A* sums, [[maybe_unused]] int step) const {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<A, float>) {
      A* found = dense + static_cast<std::ptrdiff_t>(kSpread) * stride;
      for (; o < end; o += kSpread) {
        const int rows = std::min(kSpread, end - o);
        for (int i = 0; i < rows; ++i) {
          const int entries = static_cast<int>(start_of(from + o + i + 1) - start_of(from + o + i));
          spread(mask_of(from + o + i, entries, mask), pieces_of(p.inputs), values,
                 dense + static_cast<std::ptrdiff_t>(i) * stride);
          values += entries;
        }
        std::fill(dense + static_cast<std::ptrdiff_t>(rows) * stride, found, A(0));
        detail::dots<kSpread>(dense, wide, stride, count, stride, found, kSpread);
        for (int m = 0; m < count; ++m)
          for (int i = 0; i < rows; ++i) sums[m * step + o + i] += found[m * kSpread + i];
      }
    }
#endif
  }

  // Refuses columns that are no inputs, among `all` from row `o` on.
  void check_columns(int o, std::size_t start, std::size_t all) const {
    const std::uint16_t* columns = static_cast<const std::uint16_t*>(p.positions);
    if (all_inputs(columns + start, all, p.inputs)) return;
    std::size_t bad = start;
    while (columns[bad] < p.inputs) ++bad;
    while (static_cast<std::size_t>(start_of(o + 1)) <= bad) ++o;
    throw ort::Refusal("columns must be inputs, 0 to " + std::to_string(p.inputs - 1),
                       "row " + std::to_string(o) + " has column " + std::to_string(columns[bad]));
  }

  // The bits of a row: where they lie already, or in `room`.
  const std::uint16_t* mask_of(int o, int entries, std::uint16_t* room) const {
    const std::size_t row = static_cast<std::size_t>(o);
    const std::uint8_t* bytes = static_cast<const std::uint8_t*>(p.positions);
    const std::uint16_t* mask = room;
    if (p.residual == kGroups)
      mask_of_groups(bytes, row * (p.inputs / kGroup), p.inputs, p.kept, room);
    else if (p.inputs % kPiece == 0)
      mask = reinterpret_cast<const std::uint16_t*>(bytes) + row * (p.inputs / kPiece);
    else
      mask_of_bits(bytes, static_cast<std::size_t>(p.outputs) * p.inputs, row * p.inputs, p.inputs, room);
    if (const int found = ones(mask, pieces_of(p.inputs)); found != entries)
      throw ort::Refusal("positions must be as many as entries",
                         "row " + std::to_string(o) + " has " + std::to_string(found) + " positions and " +
                             std::to_string(entries) + " entries");
    return mask;
  }

  void by_mask(int o, std::uint16_t* room, std::int32_t* columns, const A* values, int entries, A* of_row) const {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<A, float>) {
      if (!padded && p.residual == kGroups && p.kept == 2 && p.inputs % (2 * kPiece) == 0) {
        const std::uint8_t* places = static_cast<const std::uint8_t*>(p.positions) + std::size_t(o) * (p.inputs / 8);
        for (int m = 0; m < count; ++m)
          of_row[m] = two_of_four(wide + static_cast<std::ptrdiff_t>(m) * stride, places, p.inputs,
                                  [=](int i) { return _mm512_loadu_ps(values + i * kPiece); });
        return;
      }
    }
#endif
    const std::uint16_t* mask = mask_of(o, entries, room);
    if (p.inputs <= 65536) {
      std::uint16_t* narrow = reinterpret_cast<std::uint16_t*>(columns);
      columns_of_mask(mask, pieces_of(p.inputs), narrow);
      by_columns(narrow, values, entries, of_row);
    } else {
      columns_of_mask(mask, pieces_of(p.inputs), columns);
      by_columns(columns, values, entries, of_row);
    }
  }

  template <class C>
  void by_columns(const C* columns, const A* values, int entries, A* of_row) const {
    if (padded) return side_by_side(across, padded, columns, values, entries, of_row);
    for (int m = 0; m < count; ++m)
      of_row[m] = gathered(wide + static_cast<std::ptrdiff_t>(m) * stride, columns, values, entries);
  }

  const Problem<T>& p;
  int first, count, padded, stride;
  bool rounds;      // whether the base multiplies integers
  Rounded rounded;  // the tokens, if so
  A *wide, *across, *inner;  // [count, stride], [K, padded], [count, R]
};

template <class T, class Run>
void linear(const Problem<T>& p, const Run& parallel) {
  for (int first = 0; first < p.tokens; first += kTokens)
    Tokens<T>(p, first, std::min(kTokens, p.tokens - first)).run(parallel);
}

}  // namespace edgekit::tt_sparse
