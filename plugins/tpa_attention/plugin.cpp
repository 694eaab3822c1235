// edgekit::TPAAttention as a TensorRT plugin.
#include "../common/trt_creator.h"
#include "generated.h"
#include "launch.h"

namespace edgekit::trt {
namespace {

using namespace tpa_attention;

struct TpaAttention {
  using Attributes = tpa_attention::Attributes;
  static constexpr const char* kName = tpa_attention::kName;
  static constexpr const char* kVersion = "1";
  static_assert(tpa_attention::kVersion == 1);

  static std::vector<Operand> inputs(const Attributes& a) {
    std::vector<Operand> found;
    for (int i = 0; i < kInputLimit; ++i) {
      const char* axes = input_axes(Input{i}, a.factored_query, a.contextual_key, a.contextual_value);
      if (axes) found.push_back({kInputNames[i], axes, static_cast<edgekit::trt::Type>(input_type(Input{i}, a.factored_query, a.contextual_key, a.contextual_value))});
    }
    return found;
  }

  static std::vector<Operand> outputs(const Attributes& a) {
    std::vector<Operand> found;
    for (int i = 0; i < kOutputLimit; ++i) {
      const char* axes = output_axes(Output{i}, a.factored_query, a.contextual_key, a.contextual_value);
      const int past = past_of(Output{i});
      if (axes) found.push_back({kOutputNames[i], axes, edgekit::trt::Type::kGraph, past < 0 ? -1 : at(a, Input{past})});
    }
    return found;
  }

  static std::string problem(const Attributes& a) {
    for (const auto& [name, value] :
         {std::pair{"factored_query", a.factored_query}, {"contextual_key", a.contextual_key},
          {"contextual_value", a.contextual_value}, {"in_place", a.in_place}}) {
      if (value != 0 && value != 1) return std::string(name) + " is " + std::to_string(value) + ", not 0 or 1";
    }
    return "";
  }

  static std::string problem(const Attributes&, const Sizes& sizes) {
    if (sizes.of("S") > 0 && sizes.of("T") > 0 && sizes.of("S") > sizes.of("T")) {
      return "attention_mask must cover the " + std::to_string(sizes.of("S")) + " new tokens, it has " +
             std::to_string(sizes.of("T")) + " columns";
    }
    return "";
  }

  static std::string limit(const Attributes& a, const Call& call) {
    TpaAttentionParams params = parameters(a, call);
    if (a.in_place) {
      params.total = params.present_slots = params.past_slots;
    } else {
      params.total = params.present_slots = params.past_slots + params.fresh;
    }
    const char* why = tpa_attention_problem(element_of(call), params);
    return why ? why : "";
  }

  static std::size_t workspace(const Attributes& a, const Call& call) {
    return tpa_attention_workspace(parameters(a, call), element_of(call));
  }

  static cudaError_t launch(const Attributes& a, const Call& call, void* workspace, cudaStream_t stream) {
    const TpaAttentionParams params = parameters(a, call);
    const Element element = element_of(call);
    if (const char* why = tpa_attention_problem(element, params)) {
      refuse(kName, "its sizes must be ones it can run", why);
    }
    return launch_tpa_attention(element, params, workspace, stream);
  }

 private:
  static Element element_of(const Call& call) {
    if (call.type == nvinfer1::DataType::kFLOAT) return Element::float32;
    return call.type == nvinfer1::DataType::kHALF ? Element::float16 : Element::bfloat16;
  }

  // Position on the node, -1 where the operand does not exist.
  static int at(const Attributes& a, Input input) {
    return input_index(input, a.factored_query, a.contextual_key, a.contextual_value);
  }
  static int at(const Attributes& a, Output output) {
    return output_index(output, a.factored_query, a.contextual_key, a.contextual_value);
  }

  static TpaAttentionParams parameters(const Attributes& a, const Call& call) {
    const auto size = [&](Input input, int axis) { return call.input_size(at(a, input), axis); };
    TpaAttentionParams p;
    p.batch = size(Input::kBV, 0);
    p.fresh = size(Input::kBV, 1);
    p.total = size(Input::kAttentionMask, 1);
    p.past_slots = size(Input::kPastBV, 1);
    p.present_slots = call.output_size(at(a, Output::kPresentBV), 1);
    p.heads = size(Input::kAK, a.contextual_key ? 3 : 1);
    p.key_size = size(Input::kBK, 3);
    p.value_size = size(Input::kBV, 3);
    p.rank_q = a.factored_query ? size(Input::kBQ, 2) : 0;
    p.rank_k = size(Input::kBK, 2);
    p.rank_v = size(Input::kBV, 2);
    p.factored_query = a.factored_query;
    p.contextual_key = a.contextual_key;
    p.contextual_value = a.contextual_value;
    p.rotary_rows = size(Input::kCos, 0);
    p.rotary_columns = size(Input::kCos, 1);
    p.scale = a.scale;
    p.value_scale = a.value_scale;
    p.multiprocessors = call.multiprocessors;
    if (!call.inputs) return p;

    const auto in = [&](Input input) { return at(a, input) < 0 ? nullptr : call.inputs[at(a, input)]; };
    const auto out = [&](Output output) { return at(a, output) < 0 ? nullptr : call.outputs[at(a, output)]; };
    p.a_q = in(Input::kAQ);
    p.b_q = in(Input::kBQ);
    p.a_k = in(Input::kAK);
    p.b_k = in(Input::kBK);
    p.a_v = in(Input::kAV);
    p.b_v = in(Input::kBV);
    p.past_a_k = in(Input::kPastAK);
    p.past_b_k = in(Input::kPastBK);
    p.past_a_v = in(Input::kPastAV);
    p.past_b_v = in(Input::kPastBV);
    p.attention_mask = static_cast<const std::int64_t*>(in(Input::kAttentionMask));
    p.cos = in(Input::kCos);
    p.sin = in(Input::kSin);
    p.frequencies = static_cast<const std::int64_t*>(in(Input::kFrequencies));
    p.output = out(Output::kOutput);
    p.present_a_k = out(Output::kPresentAK);
    p.present_b_k = out(Output::kPresentBK);
    p.present_a_v = out(Output::kPresentAV);
    p.present_b_v = out(Output::kPresentBV);
    return p;
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* tpa_attention_creator() {
  static Creator<TpaAttention> creator;
  return &creator;
}

}  // namespace edgekit::trt
