// TtSparseLinearParams from plain arrays, for tests. In the order of tests/plugins/host_library.py.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "launch.h"

namespace edgekit {

inline TtSparseLinearParams params_of(const std::int64_t* sizes, void* const* tensors) {
  TtSparseLinearParams p;
  int i = 0;
  for (int* size : {&p.tokens, &p.inputs, &p.outputs, &p.rank, &p.entries}) *size = static_cast<int>(sizes[i++]);
  i = 0;
  for (const void** tensor : {&p.x, &p.a, &p.b, &p.values, &p.bias}) *tensor = tensors[i++];
  p.columns = static_cast<const std::int32_t*>(tensors[i++]);
  p.y = tensors[i];
  return p;
}

}  // namespace edgekit
