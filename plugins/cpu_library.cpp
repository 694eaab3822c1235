// The entry point of the library that ONNX Runtime loads with SessionOptions.register_custom_ops_library. It holds
// every operator whose source is linked in.
#include "common/ort_operator.h"

namespace ort = edgekit::ort;

extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                                                const ort::ApiBase* base) {
  const ort::Api* api = base->GetApi(ort::kApiVersion);
  if (!api) {
    const std::string text = std::string("edgekit: ONNX Runtime 1.21 or newer is needed; this is ") +
                             base->GetVersionString();
    return base->GetApi(1)->get(ort::CreateStatus)(ort::kFail, text.c_str());
  }
  // One domain for the life of the process; sessions share it.
  static ort::CustomOpDomain* domain = nullptr;
  static ort::Status* failed = [api] {
    ort::Status* status = api->get(ort::CreateCustomOpDomain)("edgekit", &domain);
    for (const ort::Listed* entry = ort::operator_list(); entry && !status; entry = entry->next)
      status = api->get(ort::CustomOpDomain_Add)(domain, &entry->op);
    return status;
  }();
  if (failed) return api->get(ort::CreateStatus)(ort::kFail, "edgekit: the operators could not be registered");
  return api->get(ort::AddCustomOpDomain)(options, domain);
}
