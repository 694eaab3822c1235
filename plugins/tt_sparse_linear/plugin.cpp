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
      const char* axes = input_axes(Input{i}, a.low_rank, a.bias);
      if (axes) found.push_back({kInputNames[i], axes, !kInputGeneric[i] && !kInputInt32[i], -1, kInputInt32[i]});
    }
    return found;
  }

  static std::vector<Operand> outputs(const Attributes& a) {
    return {{kOutputNames[0], output_axes(Output::kY, a.low_rank, a.bias)}};
  }

  static std::string problem(const Attributes& a) {
    for (const auto& [name, value] : {std::pair{"low_rank", a.low_rank}, {"bias", a.bias}}) {
      if (value != 0 && value != 1) return std::string(name) + " is " + std::to_string(value) + ", not 0 or 1";
    }
    for (const auto& [name, value] : {std::pair{"factor_bits", a.factor_bits}, {"value_bits", a.value_bits}}) {
      if (value != 0) return std::string(name) + " is " + std::to_string(value) + ", not 0";
    }
    return "";
  }

  static std::string problem(const Attributes&, const Sizes& sizes) {
    if (sizes.of("K") <= 65536) return "";
    return "columns of 16 bits reach 65536 inputs, x has " + std::to_string(sizes.of("K"));
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

  static TtSparseLinearParams parameters(const Attributes& a, const Call& call) {
    // Position on the node, -1 where the operand does not exist.
    const auto at = [&a](Input input) { return input_index(input, a.low_rank, a.bias); };
    const auto size = [&](Input input, int axis) { return call.input_size(at(input), axis); };
    TtSparseLinearParams p;
    p.tokens = size(Input::kX, 0) * size(Input::kX, 1);
    p.inputs = size(Input::kX, 2);
    p.outputs = size(Input::kValues, 0);
    p.rank = a.low_rank ? size(Input::kA, 0) : 0;
    p.entries = size(Input::kValues, 1);
    if (!call.inputs) return p;

    const auto in = [&](Input input) { return at(input) < 0 ? nullptr : call.inputs[at(input)]; };
    p.x = in(Input::kX);
    p.a = in(Input::kA);
    p.b = in(Input::kB);
    p.columns = static_cast<const std::int32_t*>(in(Input::kColumns));
    p.values = in(Input::kValues);
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
