// A plugin executed with a launcher that only writes down what it is given: which tensor arrives as which operand.
// Input i has the address 1000 + i and output i the address 2000 + i.
//   record_launch OPERATOR fields... -- dims of each input -- dims of each output      (dims: 2,3,4)
#include <NvInferRuntime.h>
#include <NvInferRuntimePlugin.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tpa_append/launch.h"
#include "tpa_attention/launch.h"
#include "tt_sparse_linear/launch.h"

using namespace nvinfer1;

namespace edgekit {

static void line(const char* name, const void* pointer) {
  std::printf("%s %zu\n", name, reinterpret_cast<std::size_t>(pointer));
}
static void line(const char* name, double value) { std::printf("%s %g\n", name, value); }

const char* tpa_attention_problem(Element, const TpaAttentionParams&) { return nullptr; }
std::size_t tpa_attention_workspace(const TpaAttentionParams&, Element) { return 0; }
cudaError_t launch_tpa_attention(Element element, const TpaAttentionParams& p, void* workspace, cudaStream_t stream) {
#define LINE(member) line(#member, p.member)
  line("element", static_cast<double>(element));
  line("workspace", workspace);
  line("stream", stream);
  LINE(batch), LINE(fresh), LINE(total), LINE(past_slots), LINE(present_slots), LINE(heads), LINE(key_size);
  LINE(value_size), LINE(rank_q), LINE(rank_k), LINE(rank_v), LINE(rotary_rows), LINE(rotary_columns), LINE(scale);
  LINE(value_scale), LINE(a_q), LINE(b_q), LINE(a_k), LINE(b_k), LINE(a_v), LINE(b_v), LINE(past_a_k), LINE(past_b_k);
  LINE(past_a_v), LINE(past_b_v), LINE(attention_mask), LINE(cos), LINE(sin), LINE(frequencies), LINE(output);
  LINE(present_a_k), LINE(present_b_k), LINE(present_a_v), LINE(present_b_v);
  return cudaSuccess;
}
const char* tpa_append_problem(const TpaAppendParams&) { return nullptr; }
cudaError_t launch_tpa_append(const TpaAppendParams& p, cudaStream_t stream) {
  line("stream", stream);
  LINE(batch), LINE(fresh), LINE(total), LINE(past_slots), LINE(present_slots), LINE(row_bytes), LINE(past);
  line("new", p.fresh_rows);
  LINE(present);
  return cudaSuccess;
}
const char* tt_sparse_linear_problem(Element, const TtSparseLinearParams&) { return nullptr; }
std::size_t tt_sparse_linear_workspace(Element, const TtSparseLinearParams&) { return 0; }
cudaError_t launch_tt_sparse_linear(Element element, const TtSparseLinearParams& p, void* workspace,
                                    cudaStream_t stream) {
  line("element", static_cast<double>(element));
  line("workspace", workspace);
  line("stream", stream);
  LINE(tokens), LINE(inputs), LINE(outputs), LINE(rank), LINE(entries), LINE(kept), LINE(x), LINE(starts);
  LINE(positions), LINE(bias), LINE(y);
  line("residual", static_cast<double>(p.residual));
  line("factor_bits", p.a.bits), line("factor_block", p.a.block), line("a", p.a.data), line("a_scales", p.a.scales);
  line("b", p.b.data), line("b_scales", p.b.scales);
  line("value_bits", p.values.bits), line("value_block", p.values.block), line("values", p.values.data);
  line("value_scales", p.values.scales);
  line("base_bits", p.base.bits), line("base_block", p.base.block), line("base", p.base.words);
  line("base_scales", p.base.scales), line("base_zeros", p.base.zeros);
  return cudaSuccess;
}

}  // namespace edgekit

extern "C" IPluginCreatorInterface* const* getCreators(std::int32_t&);

static Dims dims(const char* word) {
  Dims found{};
  for (const char* c = word; *c;) {
    char* end = nullptr;
    found.d[found.nbDims++] = std::strtol(c, &end, 10);
    c = *end ? end + 1 : end;
  }
  return found;
}

int main(int argc, char** argv) {
  std::vector<PluginTensorDesc> inputs, outputs;
  std::vector<PluginField> fields;
  static std::int32_t integers[32];
  static float reals[32];
  int part = 0;
  for (int i = 2; i < argc; ++i) {
    if (std::strcmp(argv[i], "--") == 0) {
      ++part;
    } else if (part == 0) {
      char* equal = std::strchr(argv[i], '=');
      *equal = 0;
      const std::size_t k = fields.size();
      integers[k] = std::atoi(equal + 3), reals[k] = std::strtof(equal + 3, nullptr);
      const bool real = equal[1] == 'f';
      fields.emplace_back(argv[i], real ? static_cast<void*>(&reals[k]) : &integers[k],
                          real ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32, 1);
    } else {
      PluginTensorDesc desc{};
      desc.dims = dims(argv[i]);
      desc.type = DataType::kBF16;
      (part == 1 ? inputs : outputs).push_back(desc);
    }
  }
  std::int32_t count = 0;
  auto* const* creators = getCreators(count);
  for (int i = 0; i < count; ++i) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    if (std::strcmp(creator->getPluginName(), argv[1]) != 0) continue;
    const PluginFieldCollection collection{static_cast<std::int32_t>(fields.size()), fields.data()};
    auto* plugin = creator->createPlugin("node", &collection, TensorRTPhase::kRUNTIME);
    auto* run = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    std::printf("shapes %d\n", run->onShapeChange(inputs.data(), inputs.size(), outputs.data(), outputs.size()));
    std::vector<const void*> in;
    std::vector<void*> out;
    for (std::size_t k = 0; k < inputs.size(); ++k) in.push_back(reinterpret_cast<void*>(1000 + k));
    for (std::size_t k = 0; k < outputs.size(); ++k) out.push_back(reinterpret_cast<void*>(2000 + k));
    const int status = run->enqueue(inputs.data(), outputs.data(), in.data(), out.data(), reinterpret_cast<void*>(3000),
                                    reinterpret_cast<cudaStream_t>(4000));
    return std::printf("status %d\n", status), 0;
  }
  return 1;
}
