// Generated from edgekit/ops/specs by `python -m edgekit.ops.generate`. Do not edit.
#ifndef EDGEKIT_TT_SPARSE_LINEAR_GENERATED_H
#define EDGEKIT_TT_SPARSE_LINEAR_GENERATED_H
#include <cstdint>

namespace edgekit::tt_sparse_linear {

// y = x Q^T + x A^T B + x S^T + bias: a base of few bits, a contracted tensor train and a sparse residual, without the dense weight
inline constexpr char kName[] = "TTSparseLinear";
inline constexpr char kDomain[] = "edgekit";
inline constexpr int kVersion = 1;

enum class Kind { kFloat, kInt, kString };
enum class Type { kGeneric, kInt64, kInt32, kFloat16 };  // kGeneric: that of the graph
enum class DType { kFloat32, kFloat16, kBFloat16, kFloat64 };
inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kFloat64};

// Every attribute is written on every node.
struct Attributes {
  std::int64_t out_features = 0;  // outputs of the layer
  std::int64_t rank = 0;  // rank of the pair
  std::int64_t entries = 0;  // entries of the residual
  std::int64_t low_rank = 0;  // 1: there is a pair; 0: none
  std::int64_t bias = 0;  // 1: there is a bias
  std::int64_t residual = 0;  // 0: none; positions by 1: columns, 2: a bitmap, 3: places in groups of 4 inputs
  std::int64_t factor_bits = 0;  // 0: the pair is of the graph's type; 16: float16; 8 or 4: codes with scales
  std::int64_t value_bits = 0;  // of the residual's values, as factor_bits
  std::int64_t base_bits = 0;  // of the base's codes; 0: there is none
  std::int64_t zero_points = 0;  // 1: the base has zero points; 0: none, or no base
  std::int64_t factor_block = 64;  // numbers of a or of b to a scale, a multiple of 16
  std::int64_t value_block = 64;  // values to a scale, a multiple of 16
  std::int64_t group_kept = 2;  // entries to a group of 4 inputs
  std::int64_t base_block = 64;  // inputs to a scale of the base: 32, 64, 96 or 128
  std::int64_t input_bits = 24;  // what a kernel for the base may round inputs to, by their block's largest: 24, as float32 does, or 16 bits
  const char* plugin_namespace = "edgekit";  // of the TensorRT plugin
  const char* plugin_version = "1";  // of the TensorRT plugin
};
struct AttributeField { const char* name; Kind kind; };
inline constexpr AttributeField kAttributes[] = {{"out_features", Kind::kInt}, {"rank", Kind::kInt}, {"entries", Kind::kInt}, {"low_rank", Kind::kInt}, {"bias", Kind::kInt}, {"residual", Kind::kInt}, {"factor_bits", Kind::kInt}, {"value_bits", Kind::kInt}, {"base_bits", Kind::kInt}, {"zero_points", Kind::kInt}, {"factor_block", Kind::kInt}, {"value_block", Kind::kInt}, {"group_kept", Kind::kInt}, {"base_block", Kind::kInt}, {"input_bits", Kind::kInt}, {"plugin_namespace", Kind::kString}, {"plugin_version", Kind::kString}};
inline constexpr int kAttributeCount = 17;
// visit(name, value) for each attribute; `A` is Attributes or const Attributes.
template <class A, class Visit>
void visit_attributes(A& attributes, Visit&& visit) {
  visit("out_features", attributes.out_features);
  visit("rank", attributes.rank);
  visit("entries", attributes.entries);
  visit("low_rank", attributes.low_rank);
  visit("bias", attributes.bias);
  visit("residual", attributes.residual);
  visit("factor_bits", attributes.factor_bits);
  visit("value_bits", attributes.value_bits);
  visit("base_bits", attributes.base_bits);
  visit("zero_points", attributes.zero_points);
  visit("factor_block", attributes.factor_block);
  visit("value_block", attributes.value_block);
  visit("group_kept", attributes.group_kept);
  visit("base_block", attributes.base_block);
  visit("input_bits", attributes.input_bits);
  visit("plugin_namespace", attributes.plugin_namespace);
  visit("plugin_version", attributes.plugin_version);
}

enum class Input { kX, kA, kAScales, kB, kBScales, kStarts, kPositions, kValues, kValueScales, kBase, kBaseScales, kBaseZeros, kBias };
//   x [B, S, K]: inputs
//   a [R, K] if low_rank=1 if factor_bits=0 or [R, K] if low_rank=1 if factor_bits=16 or [A_W] if low_rank=1 if factor_bits=8/4: the first half of the train, contracted and transposed: [R, K]; codes are packed without gaps, row by row, the lowest bits first, from low to high in each word
//   a_scales [A_S] if low_rank=1 if factor_bits=8/4: of a block of factor_block numbers of a, flattened: a number is scale (code - 2^(bits-1))
//   b [R, O] if low_rank=1 if factor_bits=0 or [R, O] if low_rank=1 if factor_bits=16 or [B_W] if low_rank=1 if factor_bits=8/4: the second half of the train, contracted: [R, O]; codes as of a
//   b_scales [B_S] if low_rank=1 if factor_bits=8/4: of b, as of a
//   starts [O] if residual=1/2: how many entries the rows before each have; entries of a row stand in the order of their columns
//   positions [I_W] if residual=1/2/3: residual 1: the 16-bit column of each entry, distinct in a row; 2: a bit for each of O K weights, row by row; 3: the 2-bit place of each entry among 4 inputs; the lowest bits first. Columns beyond K and rows with more or fewer bits than entries are refused on the CPU, and make NaN on a GPU
//   values [E] if residual=1/2/3 if value_bits=0 or [E] if residual=1/2/3 if value_bits=16 or [V_W] if residual=1/2/3 if value_bits=8/4: of the entries, row by row; codes as of a
//   value_scales [V_S] if residual=1/2/3 if value_bits=8/4: of a block of value_block values, as of a
//   base [Q_W] if base_bits=2/3/4: codes of the base, [tile of 16 outputs, chunk of 32 inputs, base_bits words, row of the tile], outputs filled up to whole tiles and inputs to whole blocks with anything. Byte b of word w, from the lowest bits: 2 or 4 bits: field f is the code of input 32/base_bits w + 4 f + b of the chunk. 3 bits: fields 0 and 1 of 3 bits are those of inputs 8 w + 4 f + b, and the upper two bits of words 0 and 1 are the lower two of inputs 24 + b and 28 + b, whose third are bits 6 and 7 of word 2
//   base_scales [Q_S] if base_bits=2/3/4: [tile, block, row]: a weight is scale (code - zero point)
//   base_zeros [Q_Z] if base_bits=2/3/4 if zero_points=1: zero points of tile and block as base_bits planes of 16 bits: bit r of plane p is bit p of row r's; where there are none they are 2^(base_bits-1)
//   bias [O] if bias=1: added to each token
inline constexpr int kInputLimit = 13;
inline constexpr const char* kInputNames[] = {"x", "a", "a_scales", "b", "b_scales", "starts", "positions", "values", "value_scales", "base", "base_scales", "base_zeros", "bias"};
constexpr bool has_input(Input input, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias, [[maybe_unused]] int residual, [[maybe_unused]] int factor_bits, [[maybe_unused]] int value_bits, [[maybe_unused]] int base_bits, [[maybe_unused]] bool zero_points) {
  switch (input) {
    case Input::kX: return true;
    case Input::kA: return (low_rank == 1 && factor_bits == 0) || (low_rank == 1 && factor_bits == 16) || (low_rank == 1 && (factor_bits == 8 || factor_bits == 4));
    case Input::kAScales: return low_rank == 1 && (factor_bits == 8 || factor_bits == 4);
    case Input::kB: return (low_rank == 1 && factor_bits == 0) || (low_rank == 1 && factor_bits == 16) || (low_rank == 1 && (factor_bits == 8 || factor_bits == 4));
    case Input::kBScales: return low_rank == 1 && (factor_bits == 8 || factor_bits == 4);
    case Input::kStarts: return (residual == 1 || residual == 2);
    case Input::kPositions: return (residual == 1 || residual == 2 || residual == 3);
    case Input::kValues: return ((residual == 1 || residual == 2 || residual == 3) && value_bits == 0) || ((residual == 1 || residual == 2 || residual == 3) && value_bits == 16) || ((residual == 1 || residual == 2 || residual == 3) && (value_bits == 8 || value_bits == 4));
    case Input::kValueScales: return (residual == 1 || residual == 2 || residual == 3) && (value_bits == 8 || value_bits == 4);
    case Input::kBase: return (base_bits == 2 || base_bits == 3 || base_bits == 4);
    case Input::kBaseScales: return (base_bits == 2 || base_bits == 3 || base_bits == 4);
    case Input::kBaseZeros: return (base_bits == 2 || base_bits == 3 || base_bits == 4) && zero_points == 1;
    case Input::kBias: return bias == 1;
  }
  return false;
}
constexpr int input_count(bool low_rank, bool bias, int residual, int factor_bits, int value_bits, int base_bits, bool zero_points) {
  int count = 0;
  for (int i = 0; i < kInputLimit; ++i)
    count += has_input(static_cast<Input>(i), low_rank, bias, residual, factor_bits, value_bits, base_bits, zero_points) ? 1 : 0;
  return count;
}
// Position among the inputs that exist under these flags; -1 where it does not.
constexpr int input_index(Input input, bool low_rank, bool bias, int residual, int factor_bits, int value_bits, int base_bits, bool zero_points) {
  if (!has_input(input, low_rank, bias, residual, factor_bits, value_bits, base_bits, zero_points)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(input); ++i)
    index += has_input(static_cast<Input>(i), low_rank, bias, residual, factor_bits, value_bits, base_bits, zero_points) ? 1 : 0;
  return index;
}

enum class Output { kY };
//   y [B, S, O]: outputs
inline constexpr int kOutputLimit = 1;
inline constexpr const char* kOutputNames[] = {"y"};
constexpr bool has_output(Output output, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias, [[maybe_unused]] int residual, [[maybe_unused]] int factor_bits, [[maybe_unused]] int value_bits, [[maybe_unused]] int base_bits, [[maybe_unused]] bool zero_points) {
  switch (output) {
    case Output::kY: return true;
  }
  return false;
}
constexpr int output_count(bool low_rank, bool bias, int residual, int factor_bits, int value_bits, int base_bits, bool zero_points) {
  int count = 0;
  for (int i = 0; i < kOutputLimit; ++i)
    count += has_output(static_cast<Output>(i), low_rank, bias, residual, factor_bits, value_bits, base_bits, zero_points) ? 1 : 0;
  return count;
}
// Position among the outputs that exist under these flags; -1 where it does not.
constexpr int output_index(Output output, bool low_rank, bool bias, int residual, int factor_bits, int value_bits, int base_bits, bool zero_points) {
  if (!has_output(output, low_rank, bias, residual, factor_bits, value_bits, base_bits, zero_points)) return -1;
  int index = 0;
  for (int i = 0; i < static_cast<int>(output); ++i)
    index += has_output(static_cast<Output>(i), low_rank, bias, residual, factor_bits, value_bits, base_bits, zero_points) ? 1 : 0;
  return index;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* input_axes(Input input, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias, [[maybe_unused]] int residual, [[maybe_unused]] int factor_bits, [[maybe_unused]] int value_bits, [[maybe_unused]] int base_bits, [[maybe_unused]] bool zero_points) {
  switch (input) {
    case Input::kX: return "B,S,K";
    case Input::kA:
      if ((low_rank == 1 && factor_bits == 0) || (low_rank == 1 && factor_bits == 16)) return "R,K";
      if (low_rank == 1 && (factor_bits == 8 || factor_bits == 4)) return "A_W";
      return nullptr;
    case Input::kAScales: return low_rank == 1 && (factor_bits == 8 || factor_bits == 4) ? "A_S" : nullptr;
    case Input::kB:
      if ((low_rank == 1 && factor_bits == 0) || (low_rank == 1 && factor_bits == 16)) return "R,O";
      if (low_rank == 1 && (factor_bits == 8 || factor_bits == 4)) return "B_W";
      return nullptr;
    case Input::kBScales: return low_rank == 1 && (factor_bits == 8 || factor_bits == 4) ? "B_S" : nullptr;
    case Input::kStarts: return (residual == 1 || residual == 2) ? "O" : nullptr;
    case Input::kPositions: return (residual == 1 || residual == 2 || residual == 3) ? "I_W" : nullptr;
    case Input::kValues:
      if (((residual == 1 || residual == 2 || residual == 3) && value_bits == 0) || ((residual == 1 || residual == 2 || residual == 3) && value_bits == 16)) return "E";
      if ((residual == 1 || residual == 2 || residual == 3) && (value_bits == 8 || value_bits == 4)) return "V_W";
      return nullptr;
    case Input::kValueScales: return (residual == 1 || residual == 2 || residual == 3) && (value_bits == 8 || value_bits == 4) ? "V_S" : nullptr;
    case Input::kBase: return (base_bits == 2 || base_bits == 3 || base_bits == 4) ? "Q_W" : nullptr;
    case Input::kBaseScales: return (base_bits == 2 || base_bits == 3 || base_bits == 4) ? "Q_S" : nullptr;
    case Input::kBaseZeros: return (base_bits == 2 || base_bits == 3 || base_bits == 4) && zero_points == 1 ? "Q_Z" : nullptr;
    case Input::kBias: return bias == 1 ? "O" : nullptr;
  }
  return nullptr;
}

constexpr Type input_type(Input input, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias, [[maybe_unused]] int residual, [[maybe_unused]] int factor_bits, [[maybe_unused]] int value_bits, [[maybe_unused]] int base_bits, [[maybe_unused]] bool zero_points) {
  switch (input) {
    case Input::kX: return Type::kGeneric;
    case Input::kA:
      if (low_rank == 1 && factor_bits == 16) return Type::kFloat16;
      if (low_rank == 1 && (factor_bits == 8 || factor_bits == 4)) return Type::kInt32;
      return Type::kGeneric;
    case Input::kAScales: return Type::kFloat16;
    case Input::kB:
      if (low_rank == 1 && factor_bits == 16) return Type::kFloat16;
      if (low_rank == 1 && (factor_bits == 8 || factor_bits == 4)) return Type::kInt32;
      return Type::kGeneric;
    case Input::kBScales: return Type::kFloat16;
    case Input::kStarts: return Type::kInt32;
    case Input::kPositions: return Type::kInt32;
    case Input::kValues:
      if ((residual == 1 || residual == 2 || residual == 3) && value_bits == 16) return Type::kFloat16;
      if ((residual == 1 || residual == 2 || residual == 3) && (value_bits == 8 || value_bits == 4)) return Type::kInt32;
      return Type::kGeneric;
    case Input::kValueScales: return Type::kFloat16;
    case Input::kBase: return Type::kInt32;
    case Input::kBaseScales: return Type::kFloat16;
    case Input::kBaseZeros: return Type::kInt32;
    case Input::kBias: return Type::kGeneric;
  }
  return Type::kGeneric;
}

// Axes by letter, separated by commas; null where the operand does not exist.
constexpr const char* output_axes(Output output, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias, [[maybe_unused]] int residual, [[maybe_unused]] int factor_bits, [[maybe_unused]] int value_bits, [[maybe_unused]] int base_bits, [[maybe_unused]] bool zero_points) {
  switch (output) {
    case Output::kY: return "B,S,O";
  }
  return nullptr;
}

constexpr Type output_type(Output output, [[maybe_unused]] bool low_rank, [[maybe_unused]] bool bias, [[maybe_unused]] int residual, [[maybe_unused]] int factor_bits, [[maybe_unused]] int value_bits, [[maybe_unused]] int base_bits, [[maybe_unused]] bool zero_points) {
  switch (output) {
    case Output::kY: return Type::kGeneric;
  }
  return Type::kGeneric;
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
