// Calls the CPU kernels of TPAAttention directly on random sizes, on buffers of exactly the size that they may touch,
// and compares with the definition in double. To be compiled with sanitizers, or for another instruction set than the
// library's. Prints the largest relative error of each check; the exit status says whether all are small enough.
//
// usage: core_driver ROUNDS SEED
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "common/cache_append.h"
#include "tpa_attention/cpu_attend.h"

using namespace edgekit;

namespace {

std::mt19937_64 engine;

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine); }
double normal() { return std::normal_distribution<double>()(engine); }

// Tasks on two threads, in an order that differs from run to run.
const auto on_two_threads = [](std::size_t count, const auto& body) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < count;) body(i);
  };
  std::thread other(work);
  work();
  other.join();
};

template <class T>
std::vector<T> random_rows(std::size_t count, std::size_t row, const std::vector<bool>& poisoned) {
  std::vector<T> rows(count * row);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = from_accum<T>(static_cast<accum_t<T>>(poisoned.empty() || !poisoned[i / row] ? normal() : NAN));
  return rows;
}

template <class T>
double at(const std::vector<T>& values, std::size_t i) {
  return static_cast<double>(to_accum(values[i]));
}

template <class T>
double one_round() {
  tpa::Problem<T> p{};
  p.batch = pick(1, 3);
  p.fresh = pick(0, 2) ? pick(1, 3) : pick(1, 70);
  const int past = pick(0, 2) ? pick(0, 300) : 0;
  p.total = past + p.fresh;
  p.capacity = p.total + (pick(0, 1) ? pick(0, 9) : 0);
  p.heads = pick(1, 21);
  p.key_size = 2 * pick(1, 20);
  p.value_size = pick(1, 37);
  p.rank_q = pick(1, 7);
  p.rank_k = pick(1, 4);
  p.rank_v = pick(1, 4);
  p.columns = pick(1, 9);
  p.factored_query = pick(0, 1);
  p.contextual_key = pick(0, 1);
  p.contextual_value = pick(0, 1);
  p.scale = static_cast<accum_t<T>>(0.5 / std::sqrt(p.rank_k * p.key_size * (p.factored_query ? p.rank_q : 1)));
  p.value_scale = static_cast<accum_t<T>>(0.25);

  std::vector<std::int64_t> mask(static_cast<std::size_t>(p.batch) * p.total);
  for (auto& m : mask) m = pick(0, 3) != 0;
  std::vector<bool> slot_poisoned, fresh_poisoned;
  for (int b = 0; b < p.batch; ++b)
    for (int j = 0; j < p.capacity; ++j) {
      const bool padded = j >= p.total || !mask[static_cast<std::size_t>(b) * p.total + j];
      slot_poisoned.push_back(padded || j >= past);
      if (j >= past && j < p.total) fresh_poisoned.push_back(padded);
    }
  const std::size_t tokens = static_cast<std::size_t>(p.batch) * p.fresh, slots = slot_poisoned.size();
  const std::size_t h = p.heads, d = p.key_size, e = p.value_size, rq = p.rank_q, rk = p.rank_k, rv = p.rank_v;
  const auto a_q = random_rows<T>(tokens, rq * h, {}),
             b_q = random_rows<T>(tokens, (p.factored_query ? rq : h) * d, {});
  const auto a_k = p.contextual_key ? random_rows<T>(tokens, rk * h, fresh_poisoned) : random_rows<T>(1, rk * h, {});
  const auto a_v = p.contextual_value ? random_rows<T>(tokens, rv * h, fresh_poisoned) : random_rows<T>(1, rv * h, {});
  const auto b_k = random_rows<T>(tokens, rk * d, fresh_poisoned), b_v = random_rows<T>(tokens, rv * e, fresh_poisoned);
  auto cache_a_k = random_rows<T>(p.contextual_key ? slots : 0, rk * h, slot_poisoned);
  auto cache_a_v = random_rows<T>(p.contextual_value ? slots : 0, rv * h, slot_poisoned);
  auto cache_b_k = random_rows<T>(slots, rk * d, slot_poisoned),
       cache_b_v = random_rows<T>(slots, rv * e, slot_poisoned);
  const auto cos = random_rows<T>(p.total, p.columns, {}), sin = random_rows<T>(p.total, p.columns, {});
  std::vector<std::int64_t> frequencies(d / 2);
  for (auto& f : frequencies) f = pick(0, p.columns - 1);
  std::vector<T> output(tokens * h * e);

  p.a_q = a_q.data(), p.b_q = b_q.data(), p.static_a_k = a_k.data(), p.static_a_v = a_v.data();
  p.cos = cos.data(), p.sin = sin.data(), p.mask = mask.data(), p.frequencies = frequencies.data();
  p.a_k = cache_a_k.data(), p.b_k = cache_b_k.data(), p.a_v = cache_a_v.data(), p.b_v = cache_b_v.data();
  p.output = output.data();
  std::vector<CacheUpdate<T>> updates;
  const auto update = [&](std::vector<T>& cache, const T* fresh, std::size_t row) {
    updates.push_back({cache.data(), fresh, cache.data(), p.capacity, p.capacity, static_cast<std::ptrdiff_t>(row)});
  };
  if (p.contextual_key) update(cache_a_k, a_k.data(), rk * h);
  if (p.contextual_value) update(cache_a_v, a_v.data(), rv * h);
  update(cache_b_v, b_v.data(), rv * e);
  append(updates, p.batch, past, p.fresh, on_two_threads);
  const tpa::Visibility visibility(mask.data(), p.batch, p.total, p.fresh);
  tpa::write_rotated_keys(p, visibility, b_k.data(), cache_b_k.data(), on_two_threads);
  tpa::attend(p, visibility, on_two_threads);

  // The definition, for real tokens. Keys are read from the cache, where they were rounded.
  double worst = 0, largest = 0;
  for (int b = 0; b < p.batch; ++b)
    for (int i = 0; i < p.fresh; ++i) {
      const std::int64_t* row_mask = mask.data() + static_cast<std::size_t>(b) * p.total;
      if (!row_mask[past + i]) continue;
      int position = -1;
      for (int j = 0; j <= past + i; ++j) position += row_mask[j] != 0;
      const std::size_t token = static_cast<std::size_t>(b) * p.fresh + i;
      for (std::size_t head = 0; head < h; ++head) {
        std::vector<double> query(d, 0.0), result(e, 0.0);
        for (std::size_t r = 0; r < (p.factored_query ? rq : 1); ++r) {
          const std::size_t row = (p.factored_query ? token * rq + r : token * h + head) * d;
          const double weight = p.factored_query ? at(a_q, (token * rq + r) * h + head) : 1.0;
          for (std::size_t j = 0; j < d / 2; ++j) {
            const std::size_t column = static_cast<std::size_t>(position) * p.columns + frequencies[j];
            const double x1 = at(b_q, row + j), x2 = at(b_q, row + j + d / 2), c = at(cos, column), s = at(sin, column);
            query[j] += weight * (x1 * c - x2 * s);
            query[j + d / 2] += weight * (x2 * c + x1 * s);
          }
        }
        double total = 0, most = -1e300;
        for (int pass = 0; pass < 2; ++pass)
          for (int j = 0; j <= past + i; ++j) {
            if (!row_mask[j]) continue;
            const std::size_t slot = static_cast<std::size_t>(b) * p.capacity + j;
            double score = 0;
            for (std::size_t s = 0; s < rk; ++s) {
              double product = 0;
              for (std::size_t k = 0; k < d; ++k) product += query[k] * at(cache_b_k, (slot * rk + s) * d + k);
              score += product * (p.contextual_key ? at(cache_a_k, (slot * rk + s) * h + head) : at(a_k, s * h + head));
            }
            score *= static_cast<double>(p.scale);
            if (pass == 0) {
              most = std::max(most, score);
              continue;
            }
            const double weight = std::exp(score - most);
            total += weight;
            for (std::size_t u = 0; u < rv; ++u)
              for (std::size_t k = 0; k < e; ++k)
                result[k] += weight * at(cache_b_v, (slot * rv + u) * e + k) *
                             (p.contextual_value ? at(cache_a_v, (slot * rv + u) * h + head) : at(a_v, u * h + head));
          }
        for (std::size_t k = 0; k < e; ++k) {
          const double want = result[k] / total * static_cast<double>(p.value_scale);
          const double error = std::fabs(at(output, (token * h + head) * e + k) - want);
          worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
          largest = std::max(largest, std::fabs(want));
        }
      }
    }
  return largest > 0 ? worst / largest : 0;
}

template <class T>
bool rounds(const char* name, int count, double limit) {
  double worst = 0;
  for (int i = 0; i < count; ++i) worst = std::max(worst, one_round<T>());
  std::printf("%s %.3g\n", name, worst);
  return worst <= limit;
}

// Against the C library in double: all magnitudes, and the ends of the range.
bool exponential() {
  double worst = 0;
  bool good = true;
  constexpr int lanes = simd::kLanes<float>;
  std::vector<float> in(lanes), out(lanes);
  for (int i = 0; i < 200000; ++i) {
    for (float& x : in) x = -std::exp2(std::uniform_real_distribution<float>(-30, 6.4f)(engine));
    if (i % 3 == 0)
      for (float& x : in) x = std::min(-x, 88.0f);
    simd::store(out.data(), simd::exp(simd::load(in.data())));
    for (int lane = 0; lane < lanes; ++lane) {
      const double want = std::exp(static_cast<double>(in[lane]));
      if (in[lane] >= -87.0f) worst = std::max(worst, std::fabs(out[lane] - want) / want);
      else good = good && out[lane] == 0.0f;
    }
  }
  in.assign(lanes, -std::numeric_limits<float>::infinity());
  in[0] = NAN, in[1] = 0.0f, in[2] = -1e30f;
  simd::store(out.data(), simd::exp(simd::load(in.data())));
  good = good && std::isnan(out[0]) && out[1] == 1.0f && out[2] == 0.0f && out[3] == 0.0f;
  std::printf("exp %.3g\n", worst);
  return good && worst <= 1e-7;
}

// Every 16-bit number converts as the scalar conversion of core.h does.
template <class T>
bool conversion(const char* name) {
  bool good = true;
  constexpr int lanes = simd::kLanes<float>;
  T in[lanes];
  float out[lanes];
  for (int first = 0; first < 65536; first += lanes) {
    for (int lane = 0; lane < lanes; ++lane) in[lane].bits = static_cast<std::uint16_t>(first + lane);
    simd::store(out, simd::load_accum(in));
    for (int lane = 0; lane < lanes; ++lane) {
      const float want = to_accum(in[lane]);
      const bool same = want == out[lane] && std::signbit(want) == std::signbit(out[lane]);
      good = good && (std::isnan(want) ? std::isnan(out[lane]) : same);
    }
  }
  std::printf("%s conversion %s\n", name, good ? "exact" : "WRONG");
  return good;
}

}  // namespace

int main(int, char** arguments) {
  const int count = std::atoi(arguments[1]);
  engine.seed(static_cast<unsigned>(std::atoi(arguments[2])));
  bool good = exponential();
  good &= conversion<float16>("float16");
  good &= conversion<bfloat16>("bfloat16");
  good &= rounds<float>("float32", count, 2e-5);
  good &= rounds<double>("float64", count, 1e-12);
  good &= rounds<float16>("float16", count, 2e-3);
  return good ? 0 : 1;
}
