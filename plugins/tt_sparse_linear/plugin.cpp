// edgekit::TTSparseLinear as a TensorRT plugin.
#include "../common/trt_creator.h"
#include "generated.h"
#include "launch.h"

namespace edgekit::trt {
namespace {

using namespace tt_sparse_linear;

struct TtSparseLinear {
  using Attributes = tt_sparse_linear::Attributes;
  static constexpr const char* kName = tt_sparse_linear::kName;
  static constexpr const char* kVersion = "1";
  static_assert(tt_sparse_linear::kVersion == 1);

  static std::vector<Operand> inputs(const Attributes& a) {
    std::vector<Operand> found;
    for (int i = 0; i < kInputLimit; ++i) {
      const char* axes = input_axes(Input{i}, a.low_rank, a.bias, residual(a), factor_bits(a), value_bits(a),
                                    base_bits(a), a.zero_points);
      if (!axes) continue;
      const auto type = input_type(Input{i}, a.low_rank, a.bias, residual(a), factor_bits(a), value_bits(a),
                                   base_bits(a), a.zero_points);
      found.push_back({kInputNames[i], axes, static_cast<edgekit::trt::Type>(type)});
    }
    return found;
  }

  static std::vector<Operand> outputs(const Attributes&) { return {{kOutputNames[0], "B,S,O"}}; }

  static Stated stated(const Attributes& a) { return {{"O", a.out_features}, {"R", a.rank}, {"E", a.entries}}; }

  static std::string problem(const Attributes& a) {
    std::string found;
    const auto one_of = [&found](const char* name, std::int64_t value, std::initializer_list<int> values) {
      std::string all;
      for (int each : values) {
        if (value == each) return;
        all += (all.empty() ? "" : ", ") + std::to_string(each);
      }
      if (found.empty()) found = std::string(name) + " is " + std::to_string(value) + ", not one of " + all;
    };
    one_of("low_rank", a.low_rank, {0, 1});
    one_of("bias", a.bias, {0, 1});
    one_of("residual", a.residual, {0, 1, 2, 3});
    one_of("factor_bits", a.factor_bits, {0, 16, 8, 4});
    one_of("value_bits", a.value_bits, {0, 16, 8, 4});
    one_of("group_kept", a.group_kept, {1, 2, 3, 4});
    one_of("base_bits", a.base_bits, {0, 2, 3, 4});
    one_of("zero_points", a.zero_points, {0, 1});
    one_of("input_bits", a.input_bits, {24, 16});  // the kernels do not round inputs
    if (found.empty() && a.zero_points != 0 && a.base_bits == 0) found = "zero_points is 1 without a base";
    if (found.empty() && (a.base_block < 32 || a.base_block % 32 != 0 || a.base_block > kMost))
      found = "base_block is " + std::to_string(a.base_block) + ", not a multiple of 32";
    for (const auto& [name, value] : {std::pair{"factor_block", a.factor_block}, {"value_block", a.value_block}}) {
      if (found.empty() && (value < 16 || value % 16 != 0 || value > kMost))
        found = std::string(name) + " is " + std::to_string(value) + ", not a multiple of 16";
    }
    if (found.empty() && (a.out_features < 1 || a.out_features > kMost || a.rank > kMost || a.entries > kMost))
      found = "out_features, rank and entries are beyond 1 to 2^31 - 1";
    if (found.empty() && ((a.low_rank != 0) != (a.rank > 0) || (a.residual != 0) != (a.entries > 0)))
      found = "rank or entries contradict low_rank or residual";
    if (found.empty() && a.low_rank == 0 && a.residual == 0 && a.base_bits == 0)
      found = "there is neither a base, nor a pair, nor a residual";
    return found;
  }

  static std::string problem(const Attributes& a, const Sizes& sizes) {
    const std::int64_t inputs = sizes.of("K");
    if (inputs < 0) return "";
    if (a.residual == 1 && inputs > 65536)
      return "columns of 16 bits reach 65536 inputs, x has " + std::to_string(inputs);
    const std::int64_t bits = a.residual == 1 ? 16 * a.entries : a.residual == 2 ? a.out_features * inputs : 2 * a.entries;
    const auto words = [](std::int64_t count, std::int64_t width) { return (count * width + 31) / 32; };
    const auto scales = [](std::int64_t count, std::int64_t block) { return (count + block - 1) / block; };
    const std::int64_t of_base = (a.out_features + 15) / 16 * 16 * scales(inputs, a.base_block);
    const struct {
      const char *letter, *name;
      std::int64_t wanted;
    } all[] = {{"I_W", "positions", words(bits, 1)},
               {"A_W", "a", words(a.rank * inputs, a.factor_bits)},
               {"A_S", "a_scales", scales(a.rank * inputs, a.factor_block)},
               {"B_W", "b", words(a.rank * a.out_features, a.factor_bits)},
               {"B_S", "b_scales", scales(a.rank * a.out_features, a.factor_block)},
               {"V_W", "values", words(a.entries, a.value_bits)},
               {"V_S", "value_scales", scales(a.entries, a.value_block)},
               {"Q_W", "base", of_base * (a.base_block / 32) * a.base_bits},
               {"Q_S", "base_scales", of_base},
               {"Q_Z", "base_zeros", words(of_base, a.base_bits)}};
    for (const auto& each : all) {
      const std::int64_t found = sizes.of(each.letter);
      if (found >= 0 && found != each.wanted)
        return std::string(each.name) + " has " + std::to_string(found) + " numbers, not " + std::to_string(each.wanted);
    }
    return "";
  }

  static std::string limit(const Attributes& a, const Call& call) {
    const char* why = tt_sparse_linear_problem(element_of(call), parameters(a, call));
    return why ? why : "";
  }

  static std::size_t workspace(const Attributes& a, const Call& call) {
    return tt_sparse_linear_workspace(element_of(call), parameters(a, call));
  }

  static cudaError_t launch(const Attributes& a, const Call& call, void* workspace, cudaStream_t stream) {
    const TtSparseLinearParams params = parameters(a, call);
    const Element element = element_of(call);
    if (const char* why = tt_sparse_linear_problem(element, params)) {
      refuse(kName, "its sizes must be ones it can run", why);
    }
    return launch_tt_sparse_linear(element, params, workspace, stream);
  }

 private:
  static Element element_of(const Call& call) {
    if (call.type == nvinfer1::DataType::kFLOAT) return Element::float32;
    return call.type == nvinfer1::DataType::kHALF ? Element::float16 : Element::bfloat16;
  }

  static constexpr std::int64_t kMost = 0x7fffffff;
  static int residual(const Attributes& a) { return static_cast<int>(a.residual); }
  static int factor_bits(const Attributes& a) { return static_cast<int>(a.factor_bits); }
  static int value_bits(const Attributes& a) { return static_cast<int>(a.value_bits); }
  static int base_bits(const Attributes& a) { return static_cast<int>(a.base_bits); }

  static TtSparseLinearParams parameters(const Attributes& a, const Call& call) {
    // Position on the node, -1 where the operand does not exist.
    const auto at = [&a](Input input) {
      return input_index(input, a.low_rank, a.bias, residual(a), factor_bits(a), value_bits(a), base_bits(a),
                         a.zero_points);
    };
    TtSparseLinearParams p;
    p.tokens = call.input_size(0, 0) * call.input_size(0, 1);
    p.inputs = call.input_size(0, 2);
    p.outputs = static_cast<int>(a.out_features);
    p.rank = static_cast<int>(a.rank);
    p.entries = static_cast<int>(a.entries);
    p.residual = static_cast<TtResidual>(a.residual);
    p.kept = static_cast<int>(a.group_kept);
    p.a.bits = p.b.bits = factor_bits(a);
    p.a.block = p.b.block = static_cast<int>(a.factor_block);
    p.values.bits = value_bits(a);
    p.values.block = static_cast<int>(a.value_block);
    p.base.bits = base_bits(a);
    p.base.block = static_cast<int>(a.base_block);
    if (!call.inputs) return p;

    const auto in = [&](Input input) { return at(input) < 0 ? nullptr : call.inputs[at(input)]; };
    const auto scales = [&](Input input) { return static_cast<const float16*>(in(input)); };
    p.x = in(Input::kX);
    p.a.data = in(Input::kA), p.a.scales = scales(Input::kAScales);
    p.b.data = in(Input::kB), p.b.scales = scales(Input::kBScales);
    p.values.data = in(Input::kValues), p.values.scales = scales(Input::kValueScales);
    p.starts = static_cast<const std::int32_t*>(in(Input::kStarts));
    p.positions = static_cast<const std::int32_t*>(in(Input::kPositions));
    p.base.words = static_cast<const std::uint32_t*>(in(Input::kBase));
    p.base.scales = scales(Input::kBaseScales);
    p.base.zeros = static_cast<const std::uint16_t*>(in(Input::kBaseZeros));
    p.bias = in(Input::kBias);
    p.y = call.outputs[0];
    return p;
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* tt_sparse_linear_creator() {
  static Creator<TtSparseLinear> creator;
  return &creator;
}

}  // namespace edgekit::trt
