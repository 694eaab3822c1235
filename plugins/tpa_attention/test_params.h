// TpaAttentionParams from plain arrays, for tests. In the order of tests/plugins/host_library.py.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "launch.h"

namespace edgekit {

inline TpaAttentionParams params_of(const std::int64_t* sizes, const double* scales, void* const* tensors) {
  TpaAttentionParams p;
  int i = 0;
  for (int* size : {&p.batch, &p.fresh, &p.total, &p.past_slots, &p.present_slots, &p.heads, &p.key_size, &p.value_size,
                    &p.rank_q, &p.rank_k, &p.rank_v, &p.rotary_rows, &p.rotary_columns, &p.multiprocessors, &p.splits}) {
    *size = static_cast<int>(sizes[i++]);
  }
  for (bool* flag : {&p.factored_query, &p.contextual_key, &p.contextual_value}) *flag = sizes[i++] != 0;
  p.scale = scales[0];
  p.value_scale = scales[1];
  i = 0;
  for (const void** tensor : {&p.a_q, &p.b_q, &p.a_k, &p.b_k, &p.a_v, &p.b_v, &p.past_a_k, &p.past_b_k, &p.past_a_v,
                              &p.past_b_v, &p.cos, &p.sin}) {
    *tensor = tensors[i++];
  }
  p.attention_mask = static_cast<const std::int64_t*>(tensors[i++]);
  p.frequencies = static_cast<const std::int64_t*>(tensors[i++]);
  for (void** tensor : {&p.output, &p.present_a_k, &p.present_b_k, &p.present_a_v, &p.present_b_v}) {
    *tensor = tensors[i++];
  }
  return p;
}

}  // namespace edgekit
