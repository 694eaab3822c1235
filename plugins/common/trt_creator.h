// The creator of an operator's plugin: reads and checks the fields that the parser or an engine gives.
#pragma once

#include <cstring>
#include <limits>

#include "trt_plugin.h"

namespace edgekit::trt {

template <class Op>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  using Attributes = typename Op::Attributes;

  Creator() {
    Attributes defaults;
    visit_attributes(defaults, [this](const char* name, auto& value) {
      using nvinfer1::PluginFieldType;
      if constexpr (std::is_same_v<decltype(value), float&>) {
        names_.emplace_back(name, nullptr, PluginFieldType::kFLOAT32, 1);
      } else if constexpr (std::is_same_v<decltype(value), std::int64_t&>) {
        names_.emplace_back(name, nullptr, PluginFieldType::kINT32, 1);
      }
    });
    collection_.nbFields = static_cast<std::int32_t>(names_.size());
    collection_.fields = names_.data();
  }

  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* given,
                                    nvinfer1::TensorRTPhase) noexcept override {
    Attributes attributes{};
    bool complete = true;
    visit_attributes(attributes, [&](const char* name, auto& value) {
      if constexpr (!std::is_same_v<decltype(value), const char*&>) {
        const nvinfer1::PluginField* field = find(given, name);
        complete = complete && field && read(*field, value);
      }
    });
    if (!complete) return nullptr;
    const std::string problem = Op::problem(attributes);
    if (!problem.empty()) {
      refuse(Op::kName, "an attribute must have a value that the operator knows", problem);
      return nullptr;
    }
    return new Plugin<Op>(attributes);
  }

  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return Op::kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  static const nvinfer1::PluginField* find(const nvinfer1::PluginFieldCollection* given, const char* name) {
    for (int i = 0; given && i < given->nbFields; ++i) {
      const nvinfer1::PluginField& field = given->fields[i];
      if (std::strcmp(field.name, name) == 0 && field.data && field.length == 1) return &field;
    }
    refuse(Op::kName, "every attribute must be written on the node", std::string(name) + " is missing");
    return nullptr;
  }

  static bool read(const nvinfer1::PluginField& field, float& value) {
    if (field.type != nvinfer1::PluginFieldType::kFLOAT32) return wrong_type(field, "a float");
    value = *static_cast<const float*>(field.data);
    return true;
  }

  // Parsers give an ONNX integer as int32 or int64, by their version.
  static bool read(const nvinfer1::PluginField& field, std::int64_t& value) {
    if (field.type == nvinfer1::PluginFieldType::kINT32) {
      value = *static_cast<const std::int32_t*>(field.data);
    } else if (field.type == nvinfer1::PluginFieldType::kINT64) {
      value = *static_cast<const std::int64_t*>(field.data);
    } else {
      return wrong_type(field, "an integer");
    }
    using limits = std::numeric_limits<std::int32_t>;
    if (value >= limits::min() && value <= limits::max()) return true;
    refuse(Op::kName, std::string(field.name) + " must fit in 32 bits", "it is " + std::to_string(value));
    return false;
  }

  static bool wrong_type(const nvinfer1::PluginField& field, const char* wanted) {
    refuse(Op::kName, std::string(field.name) + " must be " + wanted,
           "it is of TensorRT's field type " + std::to_string(static_cast<int>(field.type)));
    return false;
  }

  std::vector<nvinfer1::PluginField> names_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace edgekit::trt
