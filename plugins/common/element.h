// Element types of the CUDA kernels' tensors. Plain C++17.
#pragma once

#include "core.h"

namespace edgekit {

enum class Element { float32, float16, bfloat16, float64 };  // float64: on the host only

// Whether kernels are compiled for it.
inline bool known_element(Element element) {
#ifndef EDGEKIT_CUDA_ON_HOST
  if (element == Element::float64) return false;
#endif
  return element >= Element::float32 && element <= Element::float64;
}

// call(T{}) for the type of the tensors; a zero result for one that is not known.
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

}  // namespace edgekit
