// Products with a base by this instruction set against the same in double precision, on random sizes with buffers of
// exact size. Usage: driver ROUNDS. What rounding a token may change is bounded for each output:
//   sum over blocks of max |x| / (2 * 32600) sum |w| (of 8355000 for three digits), and a few roundings of float32.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "tt_sparse_linear/cpu_base.h"

namespace tt = edgekit::tt_sparse;
using edgekit::float16;

namespace {

std::mt19937 generator(1);

int below(int end) { return static_cast<int>(generator() % static_cast<unsigned>(end)); }

float normal() { return std::normal_distribution<float>()(generator); }

// Without the slack that a vector may have behind its end.
template <class A>
std::unique_ptr<A[]> exactly(std::size_t count) {
  return std::unique_ptr<A[]>(new A[count]());
}

void fail(const char* what, const tt::Base& base, int outputs, int tokens, double found, double expected) {
  std::printf("%s: bits %d, block %d, zero points %d, %d inputs, %d outputs, %d tokens: %g, not %g\n", what, base.bits,
              base.block, base.zeros != nullptr, base.inputs, outputs, tokens, found, expected);
  std::exit(1);
}

void round_trip(int inputs, int outputs, int tokens, int bits, int block, bool zeros, bool infinite) {
  tt::Base base;
  base.bits = bits, base.block = block, base.inputs = inputs;
  const int tiles = (outputs + tt::kTile - 1) / tt::kTile, blocks = base.blocks();
  const std::size_t scales = static_cast<std::size_t>(tiles) * tt::kTile * blocks;
  const auto words = exactly<std::uint8_t>(base.tile_bytes() * tiles);
  for (std::size_t i = 0; i < base.tile_bytes() * tiles; ++i) words[i] = static_cast<std::uint8_t>(generator());
  const auto halves = exactly<float16>(scales);
  for (std::size_t i = 0; i < scales; ++i) {
    const int row = static_cast<int>(i / (static_cast<std::size_t>(blocks) * tt::kTile)) * tt::kTile + i % tt::kTile;
    halves[i] = row < outputs ? edgekit::from_accum<float16>(normal() / 8) : float16{0x7e00};  // NaN for no output
  }
  const auto planes = exactly<std::uint16_t>(static_cast<std::size_t>(tiles) * blocks * bits);
  for (int i = 0; i < tiles * blocks * bits; ++i) planes[i] = static_cast<std::uint16_t>(generator());
  base.words = words.get(), base.scales = halves.get(), base.zeros = zeros ? planes.get() : nullptr;

  const auto x = exactly<float>(static_cast<std::size_t>(inputs) * tokens);
  const float wide = std::ldexp(1.0f, below(60) - 30);
  for (int i = 0; i < inputs * tokens; ++i) x[i] = normal() * wide * (below(20) ? 1 : 100) * (below(9) ? 1 : 0);
  const int bad = infinite ? below(tokens) : -1;
  const float special[] = {INFINITY, -INFINITY, NAN};
  if (infinite) x[static_cast<std::size_t>(bad) * inputs + below(inputs)] = special[below(3)];

  tt::Rounded rounded;
  rounded.digits = 2 + below(2);
  rounded.stride = static_cast<int>(base.padded()) * rounded.digits;
  const auto bytes = exactly<std::int8_t>(static_cast<std::size_t>(rounded.stride) * tokens);
  const auto of_blocks = exactly<float>(static_cast<std::size_t>(blocks) * tokens);
  const auto totals = exactly<std::int32_t>(static_cast<std::size_t>(blocks) * tokens * rounded.digits);
  rounded.bytes = bytes.get(), rounded.scales = of_blocks.get(), rounded.sums = totals.get();
  for (int m = 0; m < tokens; ++m) {
    const int half = below(blocks + 1);
    tt::round_token(base, x.get() + static_cast<std::ptrdiff_t>(m) * inputs, 0, half, m, rounded);
    tt::round_token(base, x.get() + static_cast<std::ptrdiff_t>(m) * inputs, half, blocks, m, rounded);
  }

  // Tiles from `start` on: a task makes some of them.
  const int start = below(tiles), count = tiles - start, step = count * tt::kTile;
  const auto y = exactly<float>(static_cast<std::size_t>(step) * tokens);
  std::vector<double> expected(static_cast<std::size_t>(step) * tokens), slack(expected.size()), units(inputs);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = y[i] = normal();
  tt::add_base(base, rounded, tokens, start, count, y.get(), step);
  std::vector<double> precise(x.get(), x.get() + static_cast<std::size_t>(inputs) * tokens);
  tt::add_base(base, precise.data(), inputs, tokens, start, count, expected.data(), step);
  const double step_of = rounded.digits == 3 ? 0.5 / 8355000 + 3e-7 : 0.5 / 32600 + 4e-6;
  // |w| times the rounding of each input, by the same function: one weight at a time.
  for (int k = 0; k < inputs; ++k) {
    std::vector<double> one(inputs), column(static_cast<std::size_t>(step));
    one[k] = 1;
    tt::add_base(base, one.data(), inputs, 1, start, count, column.data(), step);
    for (int m = 0; m < tokens; ++m) {
      double largest = 0;
      for (int j = k / block * block; j < std::min(inputs, (k / block + 1) * block); ++j)
        largest = std::max(largest, std::abs(precise[static_cast<std::size_t>(m) * inputs + j]));
      for (int o = 0; o < step; ++o)
        slack[static_cast<std::size_t>(m) * step + o] += std::abs(column[o]) * largest * step_of;
    }
  }
  for (int m = 0; m < tokens; ++m)
    for (int o = 0; o < step; ++o) {
      const std::size_t i = static_cast<std::size_t>(m) * step + o;
      const bool is_output = start * tt::kTile + o < outputs;
      if (!is_output) continue;
      if (m == bad) {
        if (!std::isnan(y[i])) fail("an input that is not finite", base, outputs, tokens, y[i], NAN);
      } else if (!(std::abs(y[i] - expected[i]) <= slack[i] + 1e-6 * (1 + std::abs(expected[i])))) {
        fail("too far", base, outputs, tokens, y[i], expected[i]);
      }
    }
}

}  // namespace

int main(int, char** arguments) {
  const int rounds = std::atoi(arguments[1]);
  for (int i = 0; i < rounds; ++i) {
    const int block = tt::kChunk * (1 + below(4)), bits = 2 + i % 3;
    round_trip(1 + below(300), 1 + below(70), 1 + below(9), bits, block, i / 3 % 2, below(8) == 0);
  }
  round_trip(1, 1, 1, 3, 32, true, false);
  round_trip(256, 64, 4, 4, 128, false, false);
  std::printf("%d lanes, products agree\n", tt::lanes::kCount);
}
