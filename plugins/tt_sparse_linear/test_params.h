// TtSparseLinearParams from plain arrays, for tests. In the order of tests/plugins/host_library.py.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "launch.h"

namespace edgekit {

inline TtSparseLinearParams params_of(const std::int64_t* sizes, void* const* tensors) {
  TtSparseLinearParams p;
  int i = 0, residual = 0;
  int* const integers[] = {&p.tokens,        &p.inputs,       &p.outputs,   &p.rank,        &p.entries,  &residual,
                           &p.kept,          &p.a.bits,       &p.a.block,   &p.values.bits, &p.values.block,
                           &p.base.bits,     &p.base.block};
  for (int* size : integers) *size = static_cast<int>(sizes[i++]);
  p.residual = static_cast<TtResidual>(residual);
  p.b.bits = p.a.bits, p.b.block = p.a.block;
  i = 0;
  p.x = tensors[i++];
  for (TtNumbers* numbers : {&p.a, &p.b, &p.values}) {
    numbers->data = tensors[i++];
    numbers->scales = static_cast<const float16*>(tensors[i++]);
  }
  p.starts = static_cast<const std::int32_t*>(tensors[i++]);
  p.positions = static_cast<const std::int32_t*>(tensors[i++]);
  p.base.words = static_cast<const std::uint32_t*>(tensors[i++]);
  p.base.scales = static_cast<const float16*>(tensors[i++]);
  p.base.zeros = static_cast<const std::uint16_t*>(tensors[i++]);
  p.bias = tensors[i++];
  p.y = tensors[i];
  return p;
}

}  // namespace edgekit
