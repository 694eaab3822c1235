// core.h for tests: its functions over arrays.
#include "../../plugins/common/core.h"

using namespace edgekit;

extern "C" {

void widen_float16(const float16* from, float* to, long count) {
  for (long i = 0; i < count; ++i) to[i] = to_accum(from[i]);
}
void narrow_float16(const float* from, float16* to, long count) {
  for (long i = 0; i < count; ++i) to[i] = from_accum<float16>(from[i]);
}
void widen_bfloat16(const bfloat16* from, float* to, long count) {
  for (long i = 0; i < count; ++i) to[i] = to_accum(from[i]);
}
void narrow_bfloat16(const float* from, bfloat16* to, long count) {
  for (long i = 0; i < count; ++i) to[i] = from_accum<bfloat16>(from[i]);
}

// log-sum-exp of `count` scores: blocks of `block`, dealt to `splits` states that are merged.
double log_sum_exp(const double* scores, int count, int block, int splits) {
  SoftmaxState<double> all;
  for (int split = 0; split < splits; ++split) {
    SoftmaxState<double> state;
    const int end = split_begin(count, splits, block, split + 1);
    for (int tile = split_begin(count, splits, block, split); tile < end; tile += block) {
      double largest = minus_infinity<double>();
      for (int i = tile; i < end && i < tile + block; ++i) largest = scores[i] > largest ? scores[i] : largest;
      state.extend(largest);
      for (int i = tile; i < end && i < tile + block; ++i) state.sum += softmax_rescale(scores[i], state.max);
    }
    double factor;
    softmax_merge(all, state, factor);
  }
  return all.max + std::log(all.sum);
}

int first_of_split(int slots, int splits, int unit, int index) { return split_begin(slots, splits, unit, index); }
int number_of_splits(int slots, int unit, int base, int target) { return split_count(slots, unit, base, target); }
int rule(long past, long total, long fresh) { return static_cast<int>(cache_rule(past, total, fresh)); }

}  // extern "C"
