// edgekit::TTSparseLinear for ONNX Runtime on the CPU: what a call must satisfy, and the layer of cpu_linear.h.
#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "../common/axes.h"
#include "cpu_linear.h"
#include "generated.h"

namespace {

namespace names = edgekit::tt_sparse_linear;
namespace ort = edgekit::ort;
namespace tt_sparse = edgekit::tt_sparse;
using edgekit::float16;
using names::Input;

template <class T>
class TTSparseLinear {
 public:
  static constexpr const char* name = names::kName;
  static constexpr int inputs = 3, optional_inputs = names::kInputLimit - inputs;
  static constexpr int outputs = names::kOutputLimit, optional_outputs = 0;

  explicit TTSparseLinear(const ort::Attributes& attributes)
      : low_rank_(attributes.flag("low_rank")),
        bias_(attributes.flag("bias")),
        out_features_(size(attributes, "out_features", 1)),
        rank_(size(attributes, "rank", 0)),
        entries_(size(attributes, "entries", 0)),
        residual_(choice(attributes, "residual", {0, 1, 2, 3})),
        factor_bits_(choice(attributes, "factor_bits", {0, 16, 8, 4})),
        value_bits_(choice(attributes, "value_bits", {0, 16, 8, 4})),
        base_bits_(choice(attributes, "base_bits", {0, 2, 3, 4})),
        zero_points_(attributes.flag("zero_points")),
        factor_block_(block(attributes, "factor_block")),
        value_block_(block(attributes, "value_block")),
        kept_(choice(attributes, "group_kept", {1, 2, 3, 4})),
        base_block_(size(attributes, "base_block", 1)),
        input_bits_(choice(attributes, "input_bits", {24, 16})) {
    if (!low_rank_ && !residual_ && !base_bits_)
      throw ort::Refusal("there must be a base, a pair or a residual", "all are absent");
    if (low_rank_ != (rank_ > 0))
      throw ort::Refusal("rank must be at least 1 with a pair, 0 without", "it is " + std::to_string(rank_));
    if ((residual_ != 0) != (entries_ > 0))
      throw ort::Refusal("entries must be at least 1 with a residual, 0 without", "it is " + std::to_string(entries_));
    if ((!low_rank_ && factor_bits_) || (!residual_ && value_bits_))
      throw ort::Refusal("what is absent has 0 bits",
                         "factor_bits is " + std::to_string(factor_bits_) + ", value_bits " + std::to_string(value_bits_));
    if (zero_points_ && !base_bits_) throw ort::Refusal("zero_points must be 0 without a base", "it is 1");
    if (base_block_ % tt_sparse::kChunk || base_block_ > tt_sparse::kMostOfBlock)
      throw ort::Refusal("base_block must be a multiple of 32 up to 384", "it is " + std::to_string(base_block_));
  }

  void compute(ort::Context& context) const {
    const int wanted = names::input_count(low_rank_, bias_, residual_, factor_bits_, value_bits_, base_bits_, zero_points_);
    if (context.input_count() != wanted)
      throw ort::Refusal("these attributes ask for " + std::to_string(wanted) + " inputs",
                         "the node has " + std::to_string(context.input_count()));
    ort::Axes axes;
    axes.state("O", out_features_, "out_features");
    axes.state("R", rank_, "rank");
    axes.state("E", entries_, "entries");
    tt_sparse::Problem<T> p{};
    Made made;
    p.x = input<T>(context, axes, Input::kX);
    p.inputs = axes["K"];
    p.outputs = out_features_;
    p.rank = rank_;
    p.entries = entries_;
    p.residual = residual_;
    p.kept = kept_;
    if (p.inputs < 1) throw ort::Refusal("K must be at least 1", "it is 0");
    const std::int64_t weights = std::int64_t{out_features_} * p.inputs;
    if (low_rank_) {
      p.a = numbers(context, axes, made, Input::kA, Input::kAScales, factor_bits_, factor_block_,
                    std::int64_t{rank_} * p.inputs);
      p.b = numbers(context, axes, made, Input::kB, Input::kBScales, factor_bits_, factor_block_,
                    std::int64_t{rank_} * out_features_);
    }
    if (residual_) {
      if (residual_ != tt_sparse::kGroups) p.starts = input<std::int32_t>(context, axes, Input::kStarts);
      p.positions = input<std::int32_t>(context, axes, Input::kPositions);
      check_positions(axes, p.inputs, weights);
      p.values = numbers(context, axes, made, Input::kValues, Input::kValueScales, value_bits_, value_block_,
                         entries_);
    }
    if (base_bits_) p.base = base(context, axes, made, p.inputs);
    p.digits = input_bits_ / 8;
    if (bias_) p.bias = input<T>(context, axes, Input::kBias);
    const std::int64_t tokens = static_cast<std::int64_t>(axes["B"]) * axes["S"];
    if (tokens > std::numeric_limits<std::int32_t>::max())
      throw ort::Refusal("B S must be below 2^31", "it is " + std::to_string(tokens));
    p.tokens = static_cast<int>(tokens);
    p.y = context.output<T>(0, {axes["B"], axes["S"], p.outputs});
    tt_sparse::linear(p, [&](std::size_t tasks, const auto& body) { context.parallel_for(tasks, body); });
  }

 private:
  // Arrays that a call makes of its operands.
  using Made = std::vector<std::vector<float16>>;

  static int size(const ort::Attributes& attributes, const char* of, std::int64_t least) {
    const std::int64_t value = attributes.integer(of);
    if (value < least || value > std::numeric_limits<std::int32_t>::max())
      throw ort::Refusal(std::string(of) + " must be at least " + std::to_string(least) + " and below 2^31",
                         "it is " + std::to_string(value));
    return static_cast<int>(value);
  }

  static int choice(const ort::Attributes& attributes, const char* of, std::initializer_list<int> values) {
    const std::int64_t value = attributes.integer(of);
    std::string all;
    for (int each : values) {
      if (value == each) return each;
      all += (all.empty() ? "" : ", ") + std::to_string(each);
    }
    throw ort::Refusal(std::string(of) + " must be one of " + all, "it is " + std::to_string(value));
  }

  static int block(const ort::Attributes& attributes, const char* of) {
    const int value = size(attributes, of, 1);
    if (value % tt_sparse::kUnit == 0) return value;
    throw ort::Refusal(std::string(of) + " must be a multiple of " + std::to_string(tt_sparse::kUnit),
                       "it is " + std::to_string(value));
  }

  static void expect(const char* operand, std::int64_t found, std::int64_t wanted) {
    if (found == wanted) return;
    throw ort::Refusal(std::string(operand) + " must have " + std::to_string(wanted) + " numbers",
                       "it has " + std::to_string(found));
  }

  void check_positions(const ort::Axes& axes, int width, std::int64_t weights) const {
    const std::int64_t bits = residual_ == tt_sparse::kColumns ? 16 * std::int64_t{entries_}
                              : residual_ == tt_sparse::kBitmap ? weights
                                                                : 2 * std::int64_t{entries_};
    expect("positions", axes["I_W"], (bits + 31) / 32);
    if (residual_ == tt_sparse::kColumns && width > 65536)
      throw ort::Refusal("columns of 16 bits need K of at most 65536", "it is " + std::to_string(width));
    if (residual_ == tt_sparse::kGroups && (width % 4 || weights / 4 * kept_ != entries_))
      throw ort::Refusal("groups need K of a multiple of 4, and entries to be O K / 4 group_kept",
                         "K is " + std::to_string(width) + ", entries " + std::to_string(entries_));
  }

  tt_sparse::Base base(ort::Context& context, ort::Axes& axes, Made& made, int inputs) const {
    tt_sparse::Base found;
    found.bits = base_bits_, found.block = base_block_, found.inputs = inputs;
    const std::int64_t tiles = (std::int64_t{out_features_} + tt_sparse::kTile - 1) / tt_sparse::kTile;
    const std::int64_t scales = tiles * tt_sparse::kTile * found.blocks();
    found.words = reinterpret_cast<const std::uint8_t*>(input<std::int32_t>(context, axes, Input::kBase));
    expect("base", axes["Q_W"], scales * base_block_ / 32 * base_bits_);
    found.scales = halves(context, axes, made, Input::kBaseScales);
    expect("base_scales", axes["Q_S"], scales);
    if (zero_points_) {
      found.zeros = reinterpret_cast<const std::uint16_t*>(input<std::int32_t>(context, axes, Input::kBaseZeros));
      expect("base_zeros", axes["Q_Z"], (scales * base_bits_ + 31) / 32);
    }
    return found;
  }

  tt_sparse::Numbers<T> numbers(ort::Context& context, ort::Axes& axes, Made& made, Input which, Input scales, int bits,
                                int block, std::int64_t count) const {
    tt_sparse::Numbers<T> found{bits, block, nullptr, nullptr};
    if (bits == 0) {
      found.data = input<T>(context, axes, which);
    } else if (bits == 16) {
      found.data = halves(context, axes, made, which);
    } else {
      found.data = input<std::int32_t>(context, axes, which);
      expect(names::kInputNames[static_cast<int>(which)], axes[letters(which)], (count * bits + 31) / 32);
      found.scales = halves(context, axes, made, scales);
      expect(names::kInputNames[static_cast<int>(scales)], axes[letters(scales)], (count + block - 1) / block);
    }
    return found;
  }

  const char* letters(Input which) const {
    return names::input_axes(which, low_rank_, bias_, residual_, factor_bits_, value_bits_, base_bits_, zero_points_);
  }

  // An operand of float16. Where a node of float16 has no other of that type beside it that a CPU computes, ONNX Runtime
  // makes it one of float32, whatever its inputs are for: they then hold the same values in float32.
  const float16* halves(ort::Context& context, ort::Axes& axes, Made& made, Input which) const {
    if (!std::is_same_v<T, float> || context.input_type(index_of(which)) != ort::element_type<float>())
      return input<float16>(context, axes, which);
    const char* operand = names::kInputNames[static_cast<int>(which)];
    const auto wide = context.input<float>(index_of(which), operand, ort::rank_of(letters(which)));
    axes.bind(operand, letters(which), wide.shape);
    const std::size_t count = std::accumulate(wide.shape.begin(), wide.shape.end(), std::size_t{1}, std::multiplies<>());
    std::vector<float16>& found = made.emplace_back(count);
    std::transform(wide.data, wide.data + count, found.begin(), [](float x) { return edgekit::from_accum<float16>(x); });
    return found.data();
  }

  int index_of(Input which) const {
    return names::input_index(which, low_rank_, bias_, residual_, factor_bits_, value_bits_, base_bits_, zero_points_);
  }

  template <class E>
  const E* input(ort::Context& context, ort::Axes& axes, Input which) const {
    const char* operand = names::kInputNames[static_cast<int>(which)];
    const ort::Tensor<const E> tensor = context.input<E>(index_of(which), operand, ort::rank_of(letters(which)));
    axes.bind(operand, letters(which), tensor.shape);
    return tensor.data;
  }

  bool low_rank_, bias_;
  int out_features_, rank_, entries_, residual_, factor_bits_, value_bits_, base_bits_;
  bool zero_points_;
  int factor_block_, value_block_, kept_, base_block_, input_bits_;
};

EDGEKIT_ORT_OPERATOR(TTSparseLinear)

}  // namespace
