// Generated from edgekit/ops/specs by `python -m edgekit.ops.generate`. Do not edit.
#ifndef EDGEKIT_TPA_ATTENTION_GENERATED_H
#define EDGEKIT_TPA_ATTENTION_GENERATED_H
#include <cstdint>

namespace edgekit::tpa_attention {

// append factors of keys and values to the cache and attend causally, without materialising K or V
inline constexpr char kName[] = "TPAAttention";
inline constexpr char kDomain[] = "edgekit";
inline constexpr int kVersion = 1;

enum class Kind { kFloat, kInt, kString };
enum class Type { kGeneric, kInt64, kInt32, kFloat16 };  // kGeneric: that of the graph
enum class DType { kFloat32, kFloat16, kBFloat16, kFloat64 };
inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kFloat64};

// Every attribute is written on every node.
struct Attributes {
  float scale = 0.0f;  // factor on the scores: 1 / (R_Q R_K sqrt(D)) in the paper
  float value_scale = 0.0f;  // factor on the output: 1 / R_V in the paper
  std::int64_t factored_query = 0;  // 1: queries come as factors a_q and b_q; 0: dense
  std::int64_t contextual_key = 0;  // 1: a_k per token and cached; 0: constant
  std::int64_t contextual_value = 0;  // 1: a_v per token and cached; 0: constant
  std::int64_t in_place = 0;  // 1 where the presents have the shape of the pasts (TensorRT; else the lengths decide)
  const char* plugin_namespace = "edgekit";  // of the TensorRT plugin
  const char* plugin_version = "1";  // of the TensorRT plugin
};
struct AttributeField { const char* name; Kind kind; };
inline constexpr AttributeField kAttributes[] = {{"scale", Kind::kFloat}, {"value_scale", Kind::kFloat}, {"factored_query", Kind::kInt}, {"contextual_key", Kind::kInt}, {"contextual_value", Kind::kInt}, {"in_place", Kind::kInt}, {"plugin_namespace", Kind::kString}, {"plugin_version", Kind::kString}};
inline constexpr int kAttributeCount = 8;
// visit(name, value) for each attribute; `A` is Attributes or const Attributes.
template <class A, class Visit>
void visit_attributes(A& attributes, Visit&& visit) {
  visit("scale", attributes.scale);
  visit("value_scale", attributes.value_scale);
  visit("factored_query", attributes.factored_query);
  visit("contextual_key", attributes.contextual_key);
  visit("contextual_value", attributes.contextual_value);
  visit("in_place", attributes.in_place);
  visit("plugin_namespace", attributes.plugin_namespace);
  visit("plugin_version", attributes.plugin_version);
}

enum class Input { kAQ, kBQ, kAK, kBK, kAV, kBV, kPastAK, kPastBK, kPastAV, kPastBV, kAttentionMask, kCos, kSin, kFrequencies };
//   a_q [B, S, R_Q, H] if factored_query=1: head factors of the queries
//   b_q [B, S, R_Q, D] if factored_query=1 or [B, S, H, D] if factored_query=0: feature factors of the queries, or the queries themselves; not rotated
//   a_k [B, S, R_K, H] if contextual_key=1 or [R_K, H] if contextual_key=0: head factors of the new keys, or of all keys
//   b_k [B, S, R_K, D]: feature factors of the new keys, not rotated
//   a_v [B, S, R_V, H] if contextual_value=1 or [R_V, H] if contextual_value=0: head factors of the new values, or of all values
//   b_v [B, S, R_V, E]: feature factors of the new values
//   past_a_k [B, P, R_K, H] if contextual_key=1: cache of a_k
//   past_b_k [B, P, R_K, D]: cache of b_k, rotated
//   past_a_v [B, P, R_V, H] if contextual_value=1: cache of a_v
//   past_b_v [B, P, R_V, E]: cache of b_v
//   attention_mask [B, T]: 1 real token, 0 padding
//   cos [L, F]: rotary table, a row per position
//   sin [L, F]: rotary table, a row per position
//   frequencies [D/2]: column of the tables that turns the pair (j, j + D/2)
inline constexpr int kInputLimit = 14;
inline constexpr const char* kInputNames[] = {"a_q", "b_q", "a_k", "b_k", "a_v", "b_v", "past_a_k", "past_b_k", "past_a_v", "past_b_v", "attention_mask", "cos", "sin", "frequencies"};
constexpr bool has_input(Input input, [[maybe_unused]] bool factored_query, [[maybe_unused]] bool contextual_key, [[maybe_unused]] bool contextual_value) {
  switch (input) {
    case Input::kAQ: return factored_query == 1;
    case Input::kBQ: return true;
    case Input::kAK: return true;
    case Input::kBK: return true;
    case Input::kAV: return true;
    case Input::kBV: return true;
    case Input::kPastAK: return contextual_key == 1;
    case Input::kPastBK: return true;
    case Input::kPastAV: return contextual_value == 1;
    case Input::kPastBV: return true;
    case Input::kAttentionMask: return true;
    case Input::kCos: return true;
    case Input::kSin: return true;
    case Input::kFrequencies: return true;
  }
  return false;
}
constexpr int input_count(bool factored_query, bool contextual_key, bool contextual_value) {
  int count = 0;
  for (int i = 0; i < kInputLimit; ++i)
    count += has_input(static_cast<Input>(i), factored_query, contextual_key, contextual_value) ? 1 : 0;
  return count;
}
// Position among the inputs that exist under these flags; -1 where it does not.
constexpr int input_index(Input input, bool factored_query, bool contextual_key, bool contextual_value) {
  if (!has_input(input, factored_query, contextual_key, contextual_value)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(input); ++i)
    index += has_input(static_cast<Input>(i), factored_query, contextual_key, contextual_value) ? 1 : 0;
  return index;
}

enum class Output { kOutput, kPresentAK, kPresentBK, kPresentAV, kPresentBV };
//   output [B, S, H, E]: attended values
//   present_a_k [B, N, R_K, H] if contextual_key=1: past_a_k and a_k
//   present_b_k [B, N, R_K, D]: past_b_k and rotated b_k
//   present_a_v [B, N, R_V, H] if contextual_value=1: past_a_v and a_v
//   present_b_v [B, N, R_V, E]: past_b_v and b_v
inline constexpr int kOutputLimit = 5;
inline constexpr const char* kOutputNames[] = {"output", "present_a_k", "present_b_k", "present_a_v", "present_b_v"};
constexpr bool has_output(Output output, [[maybe_unused]] bool factored_query, [[maybe_unused]] bool contextual_key, [[maybe_unused]] bool contextual_value) {
  switch (output) {
    case Output::kOutput: return true;
    case Output::kPresentAK: return contextual_key == 1;
    case Output::kPresentBK: return true;
    case Output::kPresentAV: return contextual_value == 1;
    case Output::kPresentBV: return true;
  }
  return false;
}
constexpr int output_count(bool factored_query, bool contextual_key, bool contextual_value) {
  int count = 0;
  for (int i = 0; i < kOutputLimit; ++i)
    count += has_output(static_cast<Output>(i), factored_query, contextual_key, contextual_value) ? 1 : 0;
  return count;
}
// Position among the outputs that exist under these flags; -1 where it does not.
constexpr int output_index(Output output, bool factored_query, bool contextual_key, bool contextual_value) {
  if (!has_output(output, factored_query, contextual_key, contextual_value)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(output); ++i)
    index += has_output(static_cast<Output>(i), factored_query, contextual_key, contextual_value) ? 1 : 0;
  return index;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* input_axes(Input input, [[maybe_unused]] bool factored_query, [[maybe_unused]] bool contextual_key, [[maybe_unused]] bool contextual_value) {
  switch (input) {
    case Input::kAQ: return factored_query == 1 ? "B,S,R_Q,H" : nullptr;
    case Input::kBQ: return factored_query == 1 ? "B,S,R_Q,D" : factored_query == 0 ? "B,S,H,D" : nullptr;
    case Input::kAK: return contextual_key == 1 ? "B,S,R_K,H" : contextual_key == 0 ? "R_K,H" : nullptr;
    case Input::kBK: return "B,S,R_K,D";
    case Input::kAV: return contextual_value == 1 ? "B,S,R_V,H" : contextual_value == 0 ? "R_V,H" : nullptr;
    case Input::kBV: return "B,S,R_V,E";
    case Input::kPastAK: return contextual_key == 1 ? "B,P,R_K,H" : nullptr;
    case Input::kPastBK: return "B,P,R_K,D";
    case Input::kPastAV: return contextual_value == 1 ? "B,P,R_V,H" : nullptr;
    case Input::kPastBV: return "B,P,R_V,E";
    case Input::kAttentionMask: return "B,T";
    case Input::kCos: return "L,F";
    case Input::kSin: return "L,F";
    case Input::kFrequencies: return "D/2";
  }
  return nullptr;
}

constexpr Type input_type(Input input, [[maybe_unused]] bool factored_query, [[maybe_unused]] bool contextual_key, [[maybe_unused]] bool contextual_value) {
  switch (input) {
    case Input::kAQ: return Type::kGeneric;
    case Input::kBQ: return Type::kGeneric;
    case Input::kAK: return Type::kGeneric;
    case Input::kBK: return Type::kGeneric;
    case Input::kAV: return Type::kGeneric;
    case Input::kBV: return Type::kGeneric;
    case Input::kPastAK: return Type::kGeneric;
    case Input::kPastBK: return Type::kGeneric;
    case Input::kPastAV: return Type::kGeneric;
    case Input::kPastBV: return Type::kGeneric;
    case Input::kAttentionMask: return Type::kInt64;
    case Input::kCos: return Type::kGeneric;
    case Input::kSin: return Type::kGeneric;
    case Input::kFrequencies: return Type::kInt64;
  }
  return Type::kGeneric;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* output_axes(Output output, [[maybe_unused]] bool factored_query, [[maybe_unused]] bool contextual_key, [[maybe_unused]] bool contextual_value) {
  switch (output) {
    case Output::kOutput: return "B,S,H,E";
    case Output::kPresentAK: return contextual_key == 1 ? "B,N,R_K,H" : nullptr;
    case Output::kPresentBK: return "B,N,R_K,D";
    case Output::kPresentAV: return contextual_value == 1 ? "B,N,R_V,H" : nullptr;
    case Output::kPresentBV: return "B,N,R_V,E";
  }
  return nullptr;
}

constexpr Type output_type(Output output, [[maybe_unused]] bool factored_query, [[maybe_unused]] bool contextual_key, [[maybe_unused]] bool contextual_value) {
  switch (output) {
    case Output::kOutput: return Type::kGeneric;
    case Output::kPresentAK: return Type::kGeneric;
    case Output::kPresentBK: return Type::kGeneric;
    case Output::kPresentAV: return Type::kGeneric;
    case Output::kPresentBV: return Type::kGeneric;
  }
  return Type::kGeneric;
}

// The input that an output continues, as an index into Input; -1 for none.
constexpr int past_of(Output output) {
  switch (output) {
    case Output::kOutput: return -1;
    case Output::kPresentAK: return static_cast<int>(Input::kPastAK);
    case Output::kPresentBK: return static_cast<int>(Input::kPastBK);
    case Output::kPresentAV: return static_cast<int>(Input::kPastAV);
    case Output::kPresentBV: return static_cast<int>(Input::kPastBV);
  }
  return -1;
}

}  // namespace edgekit::tpa_attention

#endif  // EDGEKIT_TPA_ATTENTION_GENERATED_H
