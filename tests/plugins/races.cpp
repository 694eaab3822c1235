// The kernels with one host thread per CUDA thread, to be run under ThreadSanitizer. Prints a sum of the outputs.
#include <cmath>
#include <cstdio>
#include <vector>

#include "../../plugins/tpa_attention/kernel.cuh"

using namespace edgekit;

namespace {

double run(int fresh, int past, int splits) {
  TpaAttentionParams p;
  p.batch = 1, p.fresh = fresh, p.total = past + fresh, p.past_slots = p.present_slots = p.total + 3;
  p.heads = 3, p.key_size = 8, p.value_size = 6, p.rank_q = 2, p.rank_k = 2, p.rank_v = 3;
  p.factored_query = p.contextual_key = p.contextual_value = true;
  p.rotary_rows = p.total, p.rotary_columns = 4;
  p.scale = 0.1, p.value_scale = 0.5, p.splits = splits;
  std::vector<std::vector<float>> memory;
  const auto tensor = [&](int count) {
    std::vector<float> values(count);
    for (int i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i + 31 * memory.size()));
    memory.push_back(std::move(values));
    return memory.back().data();
  };
  std::vector<std::int64_t> mask(p.total, 1), frequencies{0, 1, 2, 3};
  mask[0] = 0;
  p.attention_mask = mask.data(), p.frequencies = frequencies.data();
  p.a_q = tensor(fresh * 6), p.b_q = tensor(fresh * 16), p.a_k = tensor(fresh * 6), p.b_k = tensor(fresh * 16);
  p.a_v = tensor(fresh * 9), p.b_v = tensor(fresh * 18), p.cos = tensor(p.total * 4), p.sin = tensor(p.total * 4);
  p.past_a_k = p.present_a_k = tensor(p.past_slots * 6), p.past_b_k = p.present_b_k = tensor(p.past_slots * 16);
  p.past_a_v = p.present_a_v = tensor(p.past_slots * 9), p.past_b_v = p.present_b_v = tensor(p.past_slots * 18);
  float* output = tensor(fresh * 18);
  p.output = output;
  std::vector<float> workspace(workspace_bytes<float>(p) / sizeof(float));
  if (launch_tpa_attention<float>(p, workspace.data(), nullptr) != cudaSuccess) return NAN;
  double sum = 0;
  for (int i = 0; i < fresh * 18; ++i) sum += output[i];
  return sum;
}

}  // namespace

int main() {
  // Two splits; a split without slots; the prefill kernel.
  std::printf("%.9g %.9g %.9g\n", run(1, 70, 2), run(1, 5, 2), run(10, 30, 0));
  return 0;
}
