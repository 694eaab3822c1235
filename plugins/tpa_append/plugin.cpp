// edgekit::TPAAppend as a TensorRT plugin.
#include "../common/trt_creator.h"
#include "generated.h"
#include "launch.h"

namespace edgekit::trt {
namespace {

using namespace tpa_append;

struct TpaAppend {
  using Attributes = tpa_append::Attributes;
  static constexpr const char* kName = tpa_append::kName;
  static constexpr const char* kVersion = "1";
  static_assert(tpa_append::kVersion == 1);

  static std::vector<Operand> inputs(const Attributes&) {
    std::vector<Operand> found;
    for (int i = 0; i < kInputLimit; ++i) found.push_back({kInputNames[i], input_axes(Input{i}), static_cast<edgekit::trt::Type>(input_type(Input{i}))});
    return found;
  }

  static std::vector<Operand> outputs(const Attributes&) {
    return {{kOutputNames[0], output_axes(Output::kPresent), edgekit::trt::Type::kGraph, past_of(Output::kPresent)}};
  }

  static std::string problem(const Attributes& a) {
    return a.in_place == 0 || a.in_place == 1 ? "" : "in_place is " + std::to_string(a.in_place) + ", not 0 or 1";
  }

  static std::string problem(const Attributes&, const Sizes&) { return ""; }

  static std::string limit(const Attributes&, const Call&) { return ""; }

  static std::size_t workspace(const Attributes&, const Call&) { return 0; }

  static cudaError_t launch(const Attributes&, const Call& call, void*, cudaStream_t stream) {
    constexpr int past = input_index(Input::kPast), fresh = input_index(Input::kNew);
    TpaAppendParams p;
    p.batch = call.input_size(past, 0);
    p.fresh = call.input_size(fresh, 1);
    p.total = call.input_size(input_index(Input::kAttentionMask), 1);
    p.past_slots = call.input_size(past, 1);
    p.present_slots = call.output_size(0, 1);
    p.row_bytes = static_cast<std::size_t>(call.input_size(fresh, 2)) * call.input_size(fresh, 3) *
                  (call.type == nvinfer1::DataType::kFLOAT ? 4 : 2);
    p.past = call.inputs[past];
    p.fresh_rows = call.inputs[fresh];
    p.present = call.outputs[0];
    if (const char* why = tpa_append_problem(p)) refuse(kName, "its sizes must be ones it can run", why);
    return launch_tpa_append(p, stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* tpa_append_creator() {
  static Creator<TpaAppend> creator;
  return &creator;
}

}  // namespace edgekit::trt
