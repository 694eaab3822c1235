// Entry points of launch.h.
#include "kernel.cuh"

namespace edgekit {

namespace {

const char* residual_problem(const TtSparseLinearParams& p) {
  if ((p.residual == TtResidual::nothing) != (p.entries == 0)) return "entries without a residual, or none of one";
  switch (p.residual) {
    case TtResidual::nothing:
      return p.rank == 0 && p.base.bits == 0 ? "neither a base, nor a pair, nor a residual" : nullptr;
    case TtResidual::columns:
      return p.inputs > 65536 ? "columns of 16 bits do not reach all inputs" : nullptr;
    case TtResidual::bitmap:
      return nullptr;
    case TtResidual::groups:
      if (p.kept < 1 || p.kept > kLinearGroup || p.inputs % kLinearGroup != 0) return "groups that are not of 4 inputs";
      if (static_cast<long long>(p.outputs) * (p.inputs / kLinearGroup) * p.kept != p.entries)
        return "another number of entries than the groups have";
      return nullptr;
  }
  return "a residual of no known kind";
}

bool known_numbers(const TtNumbers& n) {
  if (n.bits == 0 || n.bits == 16) return true;
  return (n.bits == 8 || n.bits == 4) && n.block > 0 && n.block % 16 == 0;
}

bool aligned(const TtBase& base) {
  const auto at = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data); };
  return base.bits == 0 || (at(base.words) % 16 == 0 && at(base.scales) % 8 == 0);
}

}  // namespace

const char* tt_sparse_linear_problem(Element element, const TtSparseLinearParams& p) {
  if (!known_element(element)) return "the element type is not float32, float16 or bfloat16";
  if (p.tokens < 1 || p.inputs < 1 || p.outputs < 1) return "an axis of length 0";
  if (p.rank < 0 || p.entries < 0) return "a negative rank or number of entries";
  if (!known_numbers(p.a) || !known_numbers(p.b) || !known_numbers(p.values))
    return "numbers of other than 16, 8 or 4 bits, or blocks that are no multiple of 16";
  if (p.base.bits != 0 && (p.base.bits < 2 || p.base.bits > 4 || p.base.block < 1 || p.base.block % kBaseChunk != 0))
    return "a base of other than 2, 3 or 4 bits, or blocks that are no multiple of 32";
  if (const char* why = residual_problem(p)) return why;
  if (ceil_div(p.tokens, kLinearTokens) > 65535) return "too many tokens for one launch";
  return nullptr;
}

std::size_t tt_sparse_linear_workspace(Element element, const TtSparseLinearParams& p) {
  const std::size_t numbers = base_floats(p) + static_cast<std::size_t>(p.tokens) * p.rank;
  return numbers * (element == Element::float64 ? sizeof(double) : sizeof(float));
}

cudaError_t launch_tt_sparse_linear(Element element, const TtSparseLinearParams& p, void* workspace,
                                    cudaStream_t stream) {
  if (tt_sparse_linear_problem(element, p) != nullptr || !aligned(p.base)) return cudaErrorInvalidValue;
  return with_element(element, [&](auto zero) { return launch_linear<decltype(zero)>(p, workspace, stream); });
}

}  // namespace edgekit
