// The kernels with positions and frequencies that the rotary table does not have, to be run under AddressSanitizer.
// Prints how many of the outputs are NaN, and how many there are, per call. With an argument it reads outside of the
// table itself.
#include <cmath>
#include <cstdio>
#include <vector>

#include "../../plugins/tpa_attention/kernel.cuh"

using namespace edgekit;

namespace {

void run(int fresh, int past, int rows, std::int64_t frequency) {
  TpaAttentionParams p;
  p.batch = 1, p.fresh = fresh, p.total = p.present_slots = past + fresh, p.past_slots = past;
  p.heads = 3, p.key_size = 4, p.value_size = 4, p.rank_q = 2, p.rank_k = 2, p.rank_v = 1;
  p.factored_query = p.contextual_key = p.contextual_value = true;
  p.rotary_rows = rows, p.rotary_columns = 2;
  p.scale = 0.1, p.value_scale = 0.5;
  std::vector<std::vector<float>> memory;
  const auto tensor = [&](int count) {
    memory.emplace_back(count, 0.5f);
    return memory.back().data();
  };
  const std::vector<std::int64_t> mask(p.total, 1), frequencies{0, frequency};
  p.attention_mask = mask.data(), p.frequencies = frequencies.data();
  p.a_q = tensor(fresh * 6), p.b_q = tensor(fresh * 8), p.a_k = tensor(fresh * 6), p.b_k = tensor(fresh * 8);
  p.a_v = tensor(fresh * 3), p.b_v = tensor(fresh * 4), p.cos = tensor(rows * 2), p.sin = tensor(rows * 2);
  p.past_a_k = tensor(past * 6), p.past_b_k = tensor(past * 8), p.past_a_v = tensor(past * 3);
  p.past_b_v = tensor(past * 4);
  p.present_a_k = tensor(p.total * 6), p.present_b_k = tensor(p.total * 8), p.present_a_v = tensor(p.total * 3);
  p.present_b_v = tensor(p.total * 4);
  float* output = tensor(fresh * 12);
  p.output = output;
  std::vector<float> workspace(workspace_bytes<float>(p) / sizeof(float));
  if (launch_tpa_attention<float>(p, workspace.data(), nullptr) != cudaSuccess) std::abort();
  int bad = 0;
  for (int i = 0; i < fresh * 12; ++i) bad += std::isnan(output[i]);
  std::printf("%d/%d\n", bad, fresh * 12);
}

}  // namespace

int main(int count, char**) {
  if (count > 1) {
    const std::vector<float> table(8, 0.5f);
    const volatile float* const outside = table.data();
    std::printf("%g\n", outside[8]);
  }
  run(1, 6, 7, 1), run(12, 0, 12, 1);               // within
  run(1, 6, 6, 1), run(12, 0, 8, 1);                // positions
  run(1, 6, 7, 2), run(1, 6, 7, -1);                // frequencies next to the columns; -1 in row 0 is before the table
  run(1, 0, 1, -1), run(12, 0, 12, std::int64_t{1} << 40);
  run(1, 6, 7, std::int64_t{1} << 32);  // 0 in 32 bits
  return 0;
}
