// edgekit::TPAAttention for ONNX Runtime on the CPU: what a call must satisfy, the cache update, and the attention of
// cpu_attend.h.
#include "../common/axes.h"
#include "../common/cache_append.h"
#include "cpu_attend.h"
#include "generated.h"

namespace {

using edgekit::accum_t;
using edgekit::CacheUpdate;
using edgekit::ort::Refusal;
using edgekit::tpa_attention::Input;
using edgekit::tpa_attention::Output;
namespace names = edgekit::tpa_attention;
namespace ort = edgekit::ort;
namespace tpa = edgekit::tpa;

template <class T>
class TPAAttention {
 public:
  static constexpr const char* name = names::kName;
  static constexpr int inputs = names::input_count(false, false, false);
  static constexpr int optional_inputs = names::kInputLimit - inputs;
  static constexpr int outputs = names::output_count(false, false, false);
  static constexpr int optional_outputs = names::kOutputLimit - outputs;

  explicit TPAAttention(const ort::Attributes& attributes)
      : scale_(attributes.real("scale")),
        value_scale_(attributes.real("value_scale")),
        factored_query_(attributes.flag("factored_query")),
        contextual_key_(attributes.flag("contextual_key")),
        contextual_value_(attributes.flag("contextual_value")) {
    if (!std::isfinite(scale_) || !std::isfinite(value_scale_))
      throw Refusal("scale and value_scale must be finite",
                    "they are " + std::to_string(scale_) + " and " + std::to_string(value_scale_));
  }

  void compute(ort::Context& context) const {
    Call call(*this, context);
    call.run();
  }

 private:
  class Call;

  float scale_, value_scale_;
  bool factored_query_, contextual_key_, contextual_value_;
};

template <class T>
class TPAAttention<T>::Call {
 public:
  Call(const TPAAttention& kernel, ort::Context& context) : kernel(kernel), context(context) {
    count("inputs", names::input_count(flags(0), flags(1), flags(2)), context.input_count());
    count("outputs", names::output_count(flags(0), flags(1), flags(2)), context.output_count());
    p.factored_query = flags(0);
    p.contextual_key = flags(1);
    p.contextual_value = flags(2);
    p.scale = kernel.scale_;
    p.value_scale = kernel.value_scale_;
    p.a_q = optional(Input::kAQ);
    p.b_q = input<T>(Input::kBQ);
    a_k = input<T>(Input::kAK);
    b_k = input<T>(Input::kBK);
    a_v = input<T>(Input::kAV);
    b_v = input<T>(Input::kBV);
    past_a_k = optional(Input::kPastAK);
    past_b_k = input<T>(Input::kPastBK);
    past_a_v = optional(Input::kPastAV);
    past_b_v = input<T>(Input::kPastBV);
    p.mask = input<std::int64_t>(Input::kAttentionMask);
    p.cos = input<T>(Input::kCos);
    p.sin = input<T>(Input::kSin);
    p.frequencies = input<std::int64_t>(Input::kFrequencies);
    sizes();
  }

  void run() {
    const tpa::Visibility visibility(p.mask, p.batch, p.total, p.fresh);
    check_positions(visibility);
    const auto parallel = [this](std::size_t tasks, const auto& body) { context.parallel_for(tasks, body); };
    p.output = context.output<T>(at(Output::kOutput), {p.batch, p.fresh, p.heads, p.value_size});
    std::vector<CacheUpdate<T>> updates;
    if (p.contextual_key) p.a_k = update(updates, Output::kPresentAK, past_a_k, a_k, p.rank_k, p.heads);
    T* const present_b_k = update(updates, Output::kPresentBK, past_b_k, nullptr, p.rank_k, p.key_size);
    if (p.contextual_value) p.a_v = update(updates, Output::kPresentAV, past_a_v, a_v, p.rank_v, p.heads);
    p.b_v = update(updates, Output::kPresentBV, past_b_v, b_v, p.rank_v, p.value_size);
    p.b_k = present_b_k;
    p.static_a_k = a_k;
    p.static_a_v = a_v;
    edgekit::append(updates, p.batch, p.past(), p.fresh, parallel);
    tpa::write_rotated_keys(p, visibility, b_k, present_b_k, parallel);
    tpa::attend(p, visibility, parallel);
  }

 private:
  bool flags(int i) const {
    return i == 0 ? kernel.factored_query_ : i == 1 ? kernel.contextual_key_ : kernel.contextual_value_;
  }
  int at(Input input) const { return names::input_index(input, flags(0), flags(1), flags(2)); }
  int at(Output output) const { return names::output_index(output, flags(0), flags(1), flags(2)); }

  void count(const char* what, int wanted, int found) const {
    if (wanted != found)
      throw Refusal("factored_query=" + std::to_string(flags(0)) + " contextual_key=" + std::to_string(flags(1)) +
                        " contextual_value=" + std::to_string(flags(2)) + " asks for " + std::to_string(wanted) + " " +
                        what,
                    "the node has " + std::to_string(found));
  }

  template <class E>
  const E* input(Input which) {
    const char* operand = names::kInputNames[static_cast<int>(which)];
    const char* letters = names::input_axes(which, flags(0), flags(1), flags(2));
    const ort::Tensor<const E> tensor = context.input<E>(at(which), operand, ort::rank_of(letters));
    axes.bind(operand, letters, tensor.shape);
    return tensor.data;
  }
  const T* optional(Input which) { return at(which) < 0 ? nullptr : input<T>(which); }

  void sizes() {
    p.batch = axes["B"];
    p.fresh = axes["S"];
    p.total = axes["T"];
    p.heads = axes["H"];
    p.key_size = axes["D"];
    p.value_size = axes["E"];
    p.rank_q = p.factored_query ? axes["R_Q"] : 0;
    p.rank_k = axes["R_K"];
    p.rank_v = axes["R_V"];
    p.columns = axes["F"];
    const int past = axes["P"];
    switch (edgekit::cache_rule(past, p.total, p.fresh)) {
      case edgekit::CacheRule::grow: p.capacity = p.total; break;
      case edgekit::CacheRule::in_place: p.capacity = past; break;
      default:
        throw Refusal("the past must hold T - S slots, or be a buffer of T or more",
                      "it has " + std::to_string(past) + ", T = " + std::to_string(p.total) +
                          " (attention_mask), S = " + std::to_string(p.fresh));
    }
    past_slots = past;
    if (p.heads < 1 || p.key_size < 1 || p.value_size < 1 || p.rank_k < 1 || p.rank_v < 1 ||
        (p.factored_query && p.rank_q < 1) || p.fresh < 1)
      throw Refusal("S, H, D, E and the ranks must be at least 1",
                    "they are " + ort::to_string({p.fresh, p.heads, p.key_size, p.value_size, p.rank_q, p.rank_k,
                                                  p.rank_v}) + " (S, H, D, E, R_Q, R_K, R_V)");
    for (int j = 0; j < p.key_size / 2; ++j)
      if (p.frequencies[j] < 0 || p.frequencies[j] >= p.columns)
        throw Refusal("frequencies must be columns of cos, 0 to " + std::to_string(p.columns - 1),
                      "entry " + std::to_string(j) + " is " + std::to_string(p.frequencies[j]));
  }

  void check_positions(const tpa::Visibility& visibility) const {
    for (int b = 0; b < p.batch; ++b)
      if (visibility.position(b, p.fresh - 1) >= axes["L"])
        throw Refusal("a token's position must be a row of cos, which has " + std::to_string(axes["L"]),
                      "sequence " + std::to_string(b) + " reaches position " +
                          std::to_string(visibility.position(b, p.fresh - 1)));
  }

  T* update(std::vector<CacheUpdate<T>>& updates, Output which, const T* past, const T* fresh, int rank, int width) {
    T* present = context.output<T>(at(which), {p.batch, p.capacity, rank, width});
    updates.push_back({past, fresh, present, past_slots, p.capacity, static_cast<std::ptrdiff_t>(rank) * width});
    return present;
  }

  const TPAAttention& kernel;
  ort::Context& context;
  ort::Axes axes;
  tpa::Problem<T> p{};
  int past_slots = 0;
  const T *a_k, *b_k, *a_v, *b_v, *past_a_k, *past_b_k, *past_a_v, *past_b_v;
};

EDGEKIT_ORT_OPERATOR(TPAAttention)

}  // namespace
