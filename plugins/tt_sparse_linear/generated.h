// Generated from edgekit/ops/specs by `python -m edgekit.ops.generate`. Do not edit.
#ifndef EDGEKIT_TT_SPARSE_LINEAR_GENERATED_H
#define EDGEKIT_TT_SPARSE_LINEAR_GENERATED_H
#include <cstdint>

namespace edgekit::tt_sparse_linear {

// y = x A^T B + x S^T + bias: a contracted tensor train and a sparse residual, without the dense weight
inline constexpr char kName[] = "TTSparseLinear";
inline constexpr char kDomain[] = "edgekit";
inline constexpr int kVersion = 1;

enum class Kind { kFloat, kInt, kString };
enum class DType { kFloat32, kFloat16, kBFloat16, kFloat64 };
inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kFloat64};

// Every attribute is written on every node.
struct Attributes {
  std::int64_t low_rank = 0;  // 1: there is a pair; 0: the residual alone
  std::int64_t bias = 0;  // 1: there is a bias
  std::int64_t factor_bits = 0;  // 0: the pair is of the graph's type; others are reserved
  std::int64_t value_bits = 0;  // 0: the values are of the graph's type; others are reserved
  const char* plugin_namespace = "edgekit";  // of the TensorRT plugin
  const char* plugin_version = "1";  // of the TensorRT plugin
};
struct AttributeField { const char* name; Kind kind; };
inline constexpr AttributeField kAttributes[] = {{"low_rank", Kind::kInt}, {"bias", Kind::kInt}, {"factor_bits", Kind::kInt}, {"value_bits", Kind::kInt}, {"plugin_namespace", Kind::kString}, {"plugin_version", Kind::kString}};
inline constexpr int kAttributeCount = 6;
// visit(name, value) for each attribute; `A` is Attributes or const Attributes.
template <class A, class Visit>
void visit_attributes(A& attributes, Visit&& visit) {
  visit("low_rank", attributes.low_rank);
  visit("bias", attributes.bias);
  visit("factor_bits", attributes.factor_bits);
  visit("value_bits", attributes.value_bits);
  visit("plugin_namespace", attributes.plugin_namespace);
  visit("plugin_version", attributes.plugin_version);
}

enum class Input { kX, kA, kB, kColumns, kValues, kBias };
//   x [B, S, K]: inputs
//   a [R, K] if low_rank=1: the first half of the train, contracted and transposed
//   b [R, O] if low_rank=1: the second half of the train, contracted
//   columns [O, Z/2]: entry 2i of a row is in the column of the low 16 bits of word i, entry 2i + 1 in that of the high 16 bits; the columns of a row are distinct; one beyond K is refused on the CPU, NaN on a GPU
//   values [O, Z]: of the residual; 0 for an absent entry
//   bias [O] if bias=1: added to each token
inline constexpr int kInputLimit = 6;
inline constexpr const char* kInputNames[] = {"x", "a", "b", "columns", "values", "bias"};
// Whether the element type is the graph's; whether it is int32; the others are int64.
inline constexpr bool kInputGeneric[] = {true, true, true, false, true, true};
inline constexpr bool kInputInt32[] = {false, false, false, true, false, false};
constexpr bool has_input(Input input, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias) {
  switch (input) {
    case Input::kX: return true;
    case Input::kA: return low_rank;
    case Input::kB: return low_rank;
    case Input::kColumns: return true;
    case Input::kValues: return true;
    case Input::kBias: return bias;
  }
  return false;
}
constexpr int input_count(bool low_rank, bool bias) {
  int count = 0;
  for (int i = 0; i < kInputLimit; ++i)
    count += has_input(static_cast<Input>(i), low_rank, bias) ? 1 : 0;
  return count;
}
// Position among the inputs that exist under these flags; -1 where it does not.
constexpr int input_index(Input input, bool low_rank, bool bias) {
  if (!has_input(input, low_rank, bias)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(input); ++i)
    index += has_input(static_cast<Input>(i), low_rank, bias) ? 1 : 0;
  return index;
}

enum class Output { kY };
//   y [B, S, O]: outputs
inline constexpr int kOutputLimit = 1;
inline constexpr const char* kOutputNames[] = {"y"};
// Whether the element type is the graph's; whether it is int32; the others are int64.
inline constexpr bool kOutputGeneric[] = {true};
inline constexpr bool kOutputInt32[] = {false};
constexpr bool has_output(Output output, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias) {
  switch (output) {
    case Output::kY: return true;
  }
  return false;
}
constexpr int output_count(bool low_rank, bool bias) {
  int count = 0;
  for (int i = 0; i < kOutputLimit; ++i)
    count += has_output(static_cast<Output>(i), low_rank, bias) ? 1 : 0;
  return count;
}
// Position among the outputs that exist under these flags; -1 where it does not.
constexpr int output_index(Output output, bool low_rank, bool bias) {
  if (!has_output(output, low_rank, bias)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(output); ++i)
    index += has_output(static_cast<Output>(i), low_rank, bias) ? 1 : 0;
  return index;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* input_axes(Input input, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias) {
  switch (input) {
    case Input::kX: return "B,S,K";
    case Input::kA: return low_rank ? "R,K" : nullptr;
    case Input::kB: return low_rank ? "R,O" : nullptr;
    case Input::kColumns: return "O,Z/2";
    case Input::kValues: return "O,Z";
    case Input::kBias: return bias ? "O" : nullptr;
  }
  return nullptr;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* output_axes(Output output, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias) {
  switch (output) {
    case Output::kY: return "B,S,O";
  }
  return nullptr;
}

// The input that an output continues, as an index into Input; -1 for none.
constexpr int past_of(Output output) {
  switch (output) {
    case Output::kY: return -1;
  }
  return -1;
}

}  // namespace edgekit::tt_sparse_linear

#endif  // EDGEKIT_TT_SPARSE_LINEAR_GENERATED_H
