// Entry points of launch.h: the element type becomes a template argument.
#include "launch.h"

#include "../common/core.h"

namespace edgekit {

// Defined in kernel.cuh, instantiated in kernel_<element>.cu.
template <class T>
const char* size_problem(const TpaAttentionParams& params);
template <class T>
std::size_t workspace_bytes(const TpaAttentionParams& params);
template <class T>
cudaError_t launch_tpa_attention(const TpaAttentionParams& params, void* workspace, cudaStream_t stream);

namespace {

template <class Call>
auto with_element(Element element, const Call& call) {
  switch (element) {
    case Element::float32:
      return call(float{});
    case Element::float16:
      return call(float16{});
    case Element::bfloat16:
      return call(bfloat16{});
    case Element::float64:
#ifdef EDGEKIT_CUDA_ON_HOST
      return call(double{});
#else
      break;
#endif
  }
  return decltype(call(float{})){};
}

bool known(Element element) {
#ifndef EDGEKIT_CUDA_ON_HOST
  if (element == Element::float64) return false;
#endif
  return element >= Element::float32 && element <= Element::float64;
}

}  // namespace

const char* tpa_attention_problem(Element element, const TpaAttentionParams& params) {
  if (!known(element)) return "the element type is not float32, float16 or bfloat16";
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
