// Entry points of launch.h: the element type becomes a template argument.
#include "launch.h"

namespace edgekit {

// Defined in kernel.cuh, instantiated in kernel_<element>.cu.
template <class T>
const char* size_problem(const TpaAttentionParams& params);
template <class T>
std::size_t workspace_bytes(const TpaAttentionParams& params);
template <class T>
cudaError_t launch_tpa_attention(const TpaAttentionParams& params, void* workspace, cudaStream_t stream);

const char* tpa_attention_problem(Element element, const TpaAttentionParams& params) {
  if (!known_element(element)) return "the element type is not float32, float16 or bfloat16";
  return with_element(element, [&](auto zero) { return size_problem<decltype(zero)>(params); });
}

std::size_t tpa_attention_workspace(const TpaAttentionParams& params, Element element) {
  return with_element(element, [&](auto zero) { return workspace_bytes<decltype(zero)>(params); });
}

cudaError_t launch_tpa_attention(Element element, const TpaAttentionParams& params, void* workspace,
                                 cudaStream_t stream) {
  if (tpa_attention_problem(element, params) != nullptr) return cudaErrorInvalidValue;
  return with_element(element,
                      [&](auto zero) { return launch_tpa_attention<decltype(zero)>(params, workspace, stream); });
}

}  // namespace edgekit
