// Entry points of launch.h.
#include "kernel.cuh"

namespace edgekit {

const char* tt_sparse_linear_problem(Element element, const TtSparseLinearParams& p) {
  if (!known_element(element)) return "the element type is not float32, float16 or bfloat16";
  if (p.tokens < 1 || p.inputs < 1 || p.outputs < 1 || p.entries < 1) return "an axis of length 0";
  if (p.rank < 0) return "a negative rank";
  if (p.entries % 2 != 0) return "an odd number of entries";
  if (p.inputs > 65536) return "columns of 16 bits do not reach all inputs";
  if (ceil_div(p.tokens, kLinearTokens) > 65535) return "too many tokens for one launch";
  return nullptr;
}

std::size_t tt_sparse_linear_workspace(Element element, const TtSparseLinearParams& p) {
  return static_cast<std::size_t>(p.tokens) * p.rank * (element == Element::float64 ? sizeof(double) : sizeof(float));
}

cudaError_t launch_tt_sparse_linear(Element element, const TtSparseLinearParams& p, void* workspace,
                                    cudaStream_t stream) {
  if (tt_sparse_linear_problem(element, p) != nullptr) return cudaErrorInvalidValue;
  return with_element(element, [&](auto zero) { return launch_linear<decltype(zero)>(p, workspace, stream); });
}

}  // namespace edgekit
