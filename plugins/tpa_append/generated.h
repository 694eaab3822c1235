// Generated from edgekit/ops/specs by `python -m edgekit.ops.generate`. Do not edit.
#ifndef EDGEKIT_TPA_APPEND_GENERATED_H
#define EDGEKIT_TPA_APPEND_GENERATED_H
#include <cstdint>

namespace edgekit::tpa_append {

// append new rows to a cache along its second axis, in place where there is room
inline constexpr char kName[] = "TPAAppend";
inline constexpr char kDomain[] = "edgekit";
inline constexpr int kVersion = 1;

enum class Kind { kFloat, kInt, kString };
enum class Type { kGeneric, kInt64, kInt32, kFloat16 };  // kGeneric: that of the graph
enum class DType { kFloat32, kFloat16, kBFloat16, kFloat64 };
inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kFloat64};

// Every attribute is written on every node.
struct Attributes {
  std::int64_t in_place = 0;  // 1 where the presents have the shape of the pasts (TensorRT; else the lengths decide)
  const char* plugin_namespace = "edgekit";  // of the TensorRT plugin
  const char* plugin_version = "1";  // of the TensorRT plugin
};
struct AttributeField { const char* name; Kind kind; };
inline constexpr AttributeField kAttributes[] = {{"in_place", Kind::kInt}, {"plugin_namespace", Kind::kString}, {"plugin_version", Kind::kString}};
inline constexpr int kAttributeCount = 3;
// visit(name, value) for each attribute; `A` is Attributes or const Attributes.
template <class A, class Visit>
void visit_attributes(A& attributes, Visit&& visit) {
  visit("in_place", attributes.in_place);
  visit("plugin_namespace", attributes.plugin_namespace);
  visit("plugin_version", attributes.plugin_version);
}

enum class Input { kPast, kNew, kAttentionMask };
//   past [B, P, R, W]: older rows, or the buffer
//   new [B, S, R, W]: new rows
//   attention_mask [B, T]: only its length is read
inline constexpr int kInputLimit = 3;
inline constexpr const char* kInputNames[] = {"past", "new", "attention_mask"};
constexpr bool has_input(Input input) {
  switch (input) {
    case Input::kPast: return true;
    case Input::kNew: return true;
    case Input::kAttentionMask: return true;
  }
  return false;
}
constexpr int input_count() {
  int count = 0;
  for (int i = 0; i < kInputLimit; ++i)
    count += has_input(static_cast<Input>(i)) ? 1 : 0;
  return count;
}
// Position among the inputs that exist under these flags; -1 where it does not.
constexpr int input_index(Input input) {
  if (!has_input(input)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(input); ++i)
    index += has_input(static_cast<Input>(i)) ? 1 : 0;
  return index;
}

enum class Output { kPresent };
//   present [B, N, R, W]: past and new rows
inline constexpr int kOutputLimit = 1;
inline constexpr const char* kOutputNames[] = {"present"};
constexpr bool has_output(Output output) {
  switch (output) {
    case Output::kPresent: return true;
  }
  return false;
}
constexpr int output_count() {
  int count = 0;
  for (int i = 0; i < kOutputLimit; ++i)
    count += has_output(static_cast<Output>(i)) ? 1 : 0;
  return count;
}
// Position among the outputs that exist under these flags; -1 where it does not.
constexpr int output_index(Output output) {
  if (!has_output(output)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(output); ++i)
    index += has_output(static_cast<Output>(i)) ? 1 : 0;
  return index;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* input_axes(Input input) {
  switch (input) {
    case Input::kPast: return "B,P,R,W";
    case Input::kNew: return "B,S,R,W";
    case Input::kAttentionMask: return "B,T";
  }
  return nullptr;
}

constexpr Type input_type(Input input) {
  switch (input) {
    case Input::kPast: return Type::kGeneric;
    case Input::kNew: return Type::kGeneric;
    case Input::kAttentionMask: return Type::kInt64;
  }
  return Type::kGeneric;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* output_axes(Output output) {
  switch (output) {
    case Output::kPresent: return "B,N,R,W";
  }
  return nullptr;
}

constexpr Type output_type(Output output) {
  switch (output) {
    case Output::kPresent: return Type::kGeneric;
  }
  return Type::kGeneric;
}

// The input that an output continues, as an index into Input; -1 for none.
constexpr int past_of(Output output) {
  switch (output) {
    case Output::kPresent: return static_cast<int>(Input::kPast);
  }
  return -1;
}

}  // namespace edgekit::tpa_append

#endif  // EDGEKIT_TPA_APPEND_GENERATED_H
