// IPluginV3 and its creator for an operator that is described by a small class:
//
//   struct Op {
//     static constexpr const char* kName;                          // of the ONNX node
//     static constexpr const char* kVersion;
//     using Attributes = ...;                                      // of generated.h
//     static std::vector<Operand> inputs(const Attributes&);       // those that exist, in the order of the node
//     static std::vector<Operand> outputs(const Attributes&);
//     static std::string problem(const Attributes&);                               // "" if the values can be had
//     static std::string problem(const Attributes&, const Sizes&);                 // looks at sizes that are known
//     static std::string limit(const Attributes&, const Call&);                    // "" if its kernels can run these
//     static Stated stated(const Attributes&);                     // sizes that attributes state; may be left out
//     static std::size_t workspace(const Attributes&, const Call&);                // bytes, for the largest sizes
//     static cudaError_t launch(const Attributes&, const Call&, void* workspace, cudaStream_t);
//   };
//
// `Attributes` has visit_attributes(), and a member in_place if the operator appends to caches.
//
// Needs TensorRT 10.3 or newer: from there on a plugin may say that an output is one of its inputs
// (IPluginV3OneBuildV2), which is how a cache is written in place.
#pragma once

#include <NvInferRuntime.h>
#include <NvInferRuntimePlugin.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "trt_log.h"
#include "trt_sizes.h"

#if NV_TENSORRT_MAJOR < 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR < 3)
#error "edgekit's plugins need the headers of TensorRT 10.3 or newer"
#endif

namespace edgekit::trt {

constexpr const char* kNamespace = "edgekit";

// The operands of one execution, or of the largest one (without pointers) when TensorRT asks for the workspace.
struct Call {
  explicit Call(nvinfer1::DataType type) : type(type) {}

  nvinfer1::DataType type;
  std::vector<nvinfer1::Dims> input_dims, output_dims;
  const void* const* inputs = nullptr;
  void* const* outputs = nullptr;
  int multiprocessors = 0;

  int input_size(int index, int axis) const { return static_cast<int>(input_dims[index].d[axis]); }
  int output_size(int index, int axis) const { return static_cast<int>(output_dims[index].d[axis]); }
};

// More than any device has. The workspace is asked for at build time, where the device is not known.
constexpr int kMaxMultiprocessors = 256;

// in_place of an operator's attributes; one that appends to no cache has none.
template <class Attributes>
auto in_place(const Attributes& attributes, int) -> decltype(attributes.in_place != 0) {
  return attributes.in_place != 0;
}
template <class Attributes>
bool in_place(const Attributes&, long) {
  return false;
}

// Sizes that attributes state, by letter; of an operator without any, none.
using Stated = std::vector<std::pair<const char*, std::int64_t>>;
template <class Op, class Attributes>
auto stated(const Attributes& attributes, int) -> decltype(Op::stated(attributes)) {
  return Op::stated(attributes);
}
template <class Op, class Attributes>
Stated stated(const Attributes&, long) {
  return {};
}

// The element type of an operand where that of the graph is `element`.
inline nvinfer1::DataType type_of(const Operand& operand, nvinfer1::DataType element) {
  using nvinfer1::DataType;
  switch (operand.type) {
    case Type::kInt64: return DataType::kINT64;
    case Type::kInt32: return DataType::kINT32;
    case Type::kFloat16: return DataType::kHALF;
    case Type::kGraph: break;
  }
  return element;
}

inline bool is_element(nvinfer1::DataType type) {
  using nvinfer1::DataType;
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

template <class Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuildV2,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  using Attributes = typename Op::Attributes;

  explicit Plugin(const Attributes& attributes)
      : attributes_(attributes), inputs_(Op::inputs(attributes)), outputs_(Op::outputs(attributes)) {}

  // ---- IPluginV3, IPluginV3OneCore
  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuildV2*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
      case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override { return new Plugin(attributes_); }
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return Op::kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // ---- IPluginV3OneBuildV2
  std::int32_t getNbOutputs() const noexcept override { return static_cast<std::int32_t>(outputs_.size()); }

  std::int32_t getOutputDataTypes(nvinfer1::DataType* outputs, std::int32_t nb_outputs,
                                  const nvinfer1::DataType* inputs, std::int32_t nb_inputs) const noexcept override {
    if (!counts_agree(nb_inputs, nb_outputs) || !types_agree(inputs)) return -1;
    for (int i = 0; i < nb_outputs; ++i) outputs[i] = inputs[element_input()];
    return 0;
  }

  std::int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, std::int32_t nb_inputs, const nvinfer1::DimsExprs*,
                               std::int32_t, nvinfer1::DimsExprs* outputs, std::int32_t nb_outputs,
                               nvinfer1::IExprBuilder& builder) noexcept override {
    if (!counts_agree(nb_inputs, nb_outputs)) return -1;
    std::vector<nvinfer1::Dims> known(nb_inputs);
    std::map<std::string, const nvinfer1::IDimensionExpr*> by_letter;
    for (int i = 0; i < nb_inputs; ++i) {
      const auto names = letters(inputs_[i].axes);
      known[i].nbDims = inputs[i].nbDims;
      for (int axis = 0; axis < inputs[i].nbDims; ++axis) {
        known[i].d[axis] = inputs[i].d[axis]->isConstant() ? inputs[i].d[axis]->getConstantValue() : -1;
        if (axis < static_cast<int>(names.size())) by_letter.emplace(names[axis], inputs[i].d[axis]);
      }
    }
    if (!sizes_agree(known, nullptr)) return -1;
    for (const auto& [letter, size] : stated<Op>(attributes_, 0)) {
      by_letter.insert_or_assign(letter, builder.constant(size));
    }
    if (by_letter.count("P")) by_letter["N"] = by_letter[in_place(attributes_, 0) ? "P" : "T"];
    for (int i = 0; i < nb_outputs; ++i) {
      const auto names = letters(outputs_[i].axes);
      outputs[i].nbDims = static_cast<std::int32_t>(names.size());
      for (std::size_t axis = 0; axis < names.size(); ++axis) outputs[i].d[axis] = by_letter.at(names[axis]);
    }
    return 0;
  }

  bool supportsFormatCombination(std::int32_t position, const nvinfer1::DynamicPluginTensorDesc* operands,
                                 std::int32_t nb_inputs, std::int32_t) noexcept override {
    const auto& operand = operands[position].desc;
    if (operand.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (position < nb_inputs && !inputs_[position].of_the_graph()) {
      return operand.type == type_of(inputs_[position], operand.type);
    }
    const int first = element_input();
    return position <= first ? is_element(operand.type) : operand.type == operands[first].desc.type;
  }

  std::int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, std::int32_t nb_inputs,
                               const nvinfer1::DynamicPluginTensorDesc* outputs,
                               std::int32_t nb_outputs) noexcept override {
    if (!counts_agree(nb_inputs, nb_outputs)) return -1;
    std::vector<nvinfer1::Dims> known(nb_inputs);
    for (int i = 0; i < nb_inputs; ++i) known[i] = inputs[i].desc.dims;
    if (!sizes_agree(known, nullptr)) return -1;
    const std::string limit = Op::limit(attributes_, largest(inputs, nb_inputs, outputs, nb_outputs));
    if (limit.empty()) return 0;
    refuse(Op::kName, "the profile's largest sizes must be ones its kernels can run", limit);
    return -1;
  }

  std::size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, std::int32_t nb_inputs,
                               const nvinfer1::DynamicPluginTensorDesc* outputs,
                               std::int32_t nb_outputs) const noexcept override {
    return Op::workspace(attributes_, largest(inputs, nb_inputs, outputs, nb_outputs));
  }

  std::int32_t getAliasedInput(std::int32_t output) noexcept override {
    return in_place(attributes_, 0) ? outputs_[output].past : -1;
  }

  // ---- IPluginV3OneRuntime
  std::int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, std::int32_t nb_inputs,
                             const nvinfer1::PluginTensorDesc* outputs, std::int32_t nb_outputs) noexcept override {
    if (!counts_agree(nb_inputs, nb_outputs)) return -1;
    std::vector<nvinfer1::Dims> in(nb_inputs), out(nb_outputs);
    for (int i = 0; i < nb_inputs; ++i) in[i] = inputs[i].dims;
    for (int i = 0; i < nb_outputs; ++i) out[i] = outputs[i].dims;
    return sizes_agree(in, &out) ? 0 : -1;
  }

  std::int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                       const void* const* inputs, void* const* outputs, void* workspace,
                       cudaStream_t stream) noexcept override {
    Call call(input_descs[element_input()].type);
    for (std::size_t i = 0; i < inputs_.size(); ++i) call.input_dims.push_back(input_descs[i].dims);
    for (std::size_t i = 0; i < outputs_.size(); ++i) call.output_dims.push_back(output_descs[i].dims);
    call.inputs = inputs;
    call.outputs = outputs;
    call.multiprocessors = multiprocessors();
    const cudaError_t status = Op::launch(attributes_, call, workspace, stream);
    if (status != cudaSuccess) refuse(Op::kName, "its kernels must be launched", cudaGetErrorString(status));
    return status;
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

  // Integers are kept as int32, the type in which every version of the parser gives them.
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    serialised_.clear();
    integers_.clear();
    visit_attributes(attributes_, [this](const char* name, auto& value) {
      if constexpr (std::is_same_v<decltype(value), float&>) {
        serialised_.emplace_back(name, &value, nvinfer1::PluginFieldType::kFLOAT32, 1);
      } else if constexpr (std::is_same_v<decltype(value), std::int64_t&>) {
        integers_.push_back(std::make_unique<std::int32_t>(static_cast<std::int32_t>(value)));
        serialised_.emplace_back(name, integers_.back().get(), nvinfer1::PluginFieldType::kINT32, 1);
      }
    });
    collection_.nbFields = static_cast<std::int32_t>(serialised_.size());
    collection_.fields = serialised_.data();
    return &collection_;
  }

 private:
  int element_input() const {
    int index = 0;
    while (!inputs_[index].of_the_graph()) ++index;
    return index;
  }

  // Every operand at its largest, which need not be possible together: a long past leaves room for few new tokens.
  Call largest(const nvinfer1::DynamicPluginTensorDesc* inputs, int nb_inputs,
               const nvinfer1::DynamicPluginTensorDesc* outputs, int nb_outputs) const {
    Call call(inputs[element_input()].desc.type);
    for (int i = 0; i < nb_inputs; ++i) call.input_dims.push_back(inputs[i].max);
    for (int i = 0; i < nb_outputs; ++i) call.output_dims.push_back(outputs[i].max);
    call.multiprocessors = kMaxMultiprocessors;
    return call;
  }

  bool counts_agree(int nb_inputs, int nb_outputs) const {
    const int inputs = static_cast<int>(inputs_.size()), outputs = static_cast<int>(outputs_.size());
    if (nb_inputs == inputs && nb_outputs == outputs) return true;
    refuse(Op::kName,
           "with these attributes it takes " + std::to_string(inputs) + " inputs and gives " + std::to_string(outputs) +
               " outputs",
           "the node has " + std::to_string(nb_inputs) + " and " + std::to_string(nb_outputs));
    return false;
  }

  bool types_agree(const nvinfer1::DataType* inputs) const {
    const nvinfer1::DataType element = inputs[element_input()];
    if (!is_element(element)) {
      refuse(Op::kName, "elements must be float32, float16 or bfloat16",
             std::string(inputs_[element_input()].name) + " is of TensorRT type " +
                 std::to_string(static_cast<int>(element)));
      return false;
    }
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (inputs[i] == type_of(inputs_[i], element)) continue;
      refuse(Op::kName,
             inputs_[i].type == Type::kInt64     ? "indices and masks must be int64"
             : inputs_[i].type == Type::kInt32   ? "words and columns must be int32"
             : inputs_[i].type == Type::kFloat16 ? "scales and half values must be float16"
                                                 : "all elements must be of one type",
             std::string(inputs_[i].name) + " is of TensorRT type " + std::to_string(static_cast<int>(inputs[i])));
      return false;
    }
    return true;
  }

  bool sizes_agree(const std::vector<nvinfer1::Dims>& inputs, const std::vector<nvinfer1::Dims>* outputs) const {
    Sizes sizes;
    for (const auto& [letter, size] : stated<Op>(attributes_, 0)) sizes.state(letter, size);
    std::string problem;
    for (std::size_t i = 0; i < inputs.size() && problem.empty(); ++i) problem = sizes.bind(inputs_[i], inputs[i]);
    for (std::size_t i = 0; outputs && i < outputs->size() && problem.empty(); ++i) {
      problem = sizes.bind(outputs_[i], (*outputs)[i]);
    }
    if (problem.empty()) problem = cache_problem(sizes);
    if (problem.empty()) problem = Op::problem(attributes_, sizes);
    if (problem.empty()) return true;
    refuse(Op::kName, "the shapes of its operands must agree", problem);
    return false;
  }

  // The cache rule: the pasts hold the T - S older tokens, or in place are buffers for at least T.
  std::string cache_problem(const Sizes& sizes) const {
    const auto past = sizes.of("P"), fresh = sizes.of("S"), total = sizes.of("T"), present = sizes.of("N");
    if (in_place(attributes_, 0)) {
      if (past >= 0 && present >= 0 && past != present) return wrong_present(present, "P", past);
      if (past < 0 || total < 0 || past >= total) return "";
      return "in place the pasts must have room for T = " + std::to_string(total) + " tokens, they have " +
             std::to_string(past) + " slots";
    }
    if (total >= 0 && present >= 0 && total != present) return wrong_present(present, "T", total);
    if (past < 0 || fresh < 0 || total < 0 || past + fresh == total) return "";
    return "without in_place T must be P + S, and attention_mask has " + std::to_string(total) + " columns, not " +
           std::to_string(past) + " + " + std::to_string(fresh);
  }

  static std::string wrong_present(std::int64_t present, const char* letter, std::int64_t size) {
    return "the presents have " + std::to_string(present) + " slots, not " + letter + " = " + std::to_string(size);
  }

  int multiprocessors() {
    if (multiprocessors_ == 0) {
      int device = 0;
      multiprocessors_ = 1;
      if (cudaGetDevice(&device) == cudaSuccess) {
        cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device);
      }
      if (multiprocessors_ > kMaxMultiprocessors) multiprocessors_ = kMaxMultiprocessors;
    }
    return multiprocessors_;
  }

  Attributes attributes_;
  std::vector<Operand> inputs_, outputs_;
  std::vector<nvinfer1::PluginField> serialised_;
  std::vector<std::unique_ptr<std::int32_t>> integers_;
  nvinfer1::PluginFieldCollection collection_{};
  int multiprocessors_ = 0;
};

}  // namespace edgekit::trt
