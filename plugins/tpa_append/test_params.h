// TpaAppendParams from plain arrays, for tests. In the order of tests/plugins/host_library.py.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "launch.h"

namespace edgekit {

inline TpaAppendParams params_of(const std::int64_t* sizes, void* const* tensors) {
  TpaAppendParams p;
  int i = 0;
  for (int* size : {&p.batch, &p.fresh, &p.total, &p.past_slots, &p.present_slots}) *size = static_cast<int>(sizes[i++]);
  p.row_bytes = sizes[i];
  p.past = tensors[0];
  p.fresh_rows = tensors[1];
  p.present = tensors[2];
  return p;
}

}  // namespace edgekit
