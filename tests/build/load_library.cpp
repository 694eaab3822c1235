// Loads a plugin library as TensorRT does and says what is in it, one fact per line. Needs TensorRT's headers only.
//   load_library LIBRARY                       the creators
//   load_library LIBRARY OPERATOR name=value   ... and a plugin of the operator with these fields; i:1 or f:0.5
#include <NvInferRuntime.h>
#include <NvInferRuntimePlugin.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

using namespace nvinfer1;

struct Logger : ILogger {
  void log(Severity severity, const char* message) noexcept override {
    std::printf("log %d %s\n", static_cast<int>(severity), message);
  }
};

struct Finder : ILoggerFinder {
  Logger logger;
  ILogger* findLogger() override { return &logger; }
};

struct Fields {
  std::vector<std::string> names;
  std::vector<std::int32_t> integers;
  std::vector<float> reals;
  std::vector<PluginField> list;
  PluginFieldCollection collection{};

  void read(int count, char** words) {
    names.reserve(count), integers.reserve(count), reals.reserve(count);
    for (int i = 0; i < count; ++i) {
      const std::string word = words[i];
      const auto equal = word.find('='), colon = word.find(':');
      names.push_back(word.substr(0, equal));
      const std::string value = word.substr(colon + 1);
      if (word[equal + 1] == 'f') {
        reals.push_back(std::strtof(value.c_str(), nullptr));
        list.emplace_back(names.back().c_str(), &reals.back(), PluginFieldType::kFLOAT32, 1);
      } else {
        integers.push_back(std::atoi(value.c_str()));
        list.emplace_back(names.back().c_str(), &integers.back(), PluginFieldType::kINT32, 1);
      }
    }
    collection.nbFields = static_cast<std::int32_t>(list.size());
    collection.fields = list.data();
  }
};

void print(const char* title, const PluginFieldCollection& fields) {
  std::printf("%s", title);
  for (int i = 0; i < fields.nbFields; ++i) {
    const PluginField& field = fields.fields[i];
    if (field.type == PluginFieldType::kFLOAT32) {
      std::printf(" %s=f:%a", field.name, *static_cast<const float*>(field.data));
    } else {
      std::printf(" %s=i:%d", field.name, *static_cast<const std::int32_t*>(field.data));
    }
  }
  std::printf("\n");
}

int main(int argc, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return std::printf("dlopen %s\n", dlerror()), 1;
  using Set = void (*)(ILoggerFinder*);
  using Get = IPluginCreatorInterface* const* (*)(std::int32_t&);
  static Finder finder;
  reinterpret_cast<Set>(dlsym(library, "setLoggerFinder"))(&finder);
  std::int32_t count = 0;
  auto* const* creators = reinterpret_cast<Get>(dlsym(library, "getCreators"))(count);
  IPluginCreatorV3One* wanted = nullptr;
  for (int i = 0; i < count; ++i) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    const InterfaceInfo info = creator->getInterfaceInfo();
    std::printf("creator %s %s %s %s", creator->getPluginName(), creator->getPluginVersion(),
                creator->getPluginNamespace(), info.kind);
    for (int k = 0; k < creator->getFieldNames()->nbFields; ++k) {
      std::printf(" %s", creator->getFieldNames()->fields[k].name);
    }
    std::printf("\n");
    if (argc > 2 && std::strcmp(creator->getPluginName(), argv[2]) == 0) wanted = creator;
  }
  if (!wanted) return argc > 2;

  Fields fields;
  fields.read(argc - 3, argv + 3);
  IPluginV3* plugin = wanted->createPlugin("node", &fields.collection, TensorRTPhase::kBUILD);
  if (!plugin) return std::printf("refused\n"), 0;
  auto* runtime = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  print("serialised", *runtime->getFieldsToSerialize());
  IPluginV3* again = wanted->createPlugin("node", runtime->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
  IPluginV3* copy = again->clone();
  delete plugin;
  delete again;
  print("restored", *static_cast<IPluginV3OneRuntime*>(copy->getCapabilityInterface(PluginCapabilityType::kRUNTIME))
                        ->getFieldsToSerialize());
  auto* build = static_cast<IPluginV3OneBuildV2*>(copy->getCapabilityInterface(PluginCapabilityType::kBUILD));
  auto* core = static_cast<IPluginV3OneCore*>(copy->getCapabilityInterface(PluginCapabilityType::kCORE));
  std::printf("plugin %s %s %s\n", core->getPluginName(), core->getPluginVersion(), core->getPluginNamespace());
  std::printf("build interface %d\naliases", build->getInterfaceInfo().major);
  for (int i = 0; i < build->getNbOutputs(); ++i) std::printf(" %d", build->getAliasedInput(i));
  std::printf("\n");
  delete copy;
  return 0;
}
