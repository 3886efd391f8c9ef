// convoy-pdata_tools: the tools for a pool's metadata, in one program.
#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include <fmt/format.h>

#include "base/error.h"
#include "pdata/tool.h"

namespace convoy {
namespace {

constexpr std::array<const Tool*, 5> kTools = {&kThinCheck, &kThinDelta, &kThinDump, &kThinLs,
                                               &kThinMetadataSize};

const Tool* find_tool(std::string_view name) {
  const auto* const found =
      std::ranges::find_if(kTools, [&](const Tool* tool) { return tool->name == name; });
  return found == kTools.end() ? nullptr : *found;
}

void print_usage(std::FILE* out) {
  fmt::print(out, "Usage: convoy-pdata_tools TOOL [OPTION...]\n\n");
  for (const Tool* const tool : kTools) fmt::print(out, "  {:<20}{}\n", tool->name, tool->summary);
  fmt::print(
      out,
      "\nEach has a --help, and may be called through a link of its name. The words that the "
      "answers\nuse are those of the thin-provisioning-tools.\n");
}

int run_tool(const Tool& tool, int count, char** arguments) {
  try {
    const int status = tool.run(count, arguments);
    if (std::fflush(stdout) != 0) throw system_error(errno, "standard output");
    return status;
  } catch (const Error& error) {
    static_cast<void>(std::fflush(stdout));
    fmt::print(stderr, "{}: {}\n", tool.name, error.message());
    return 1;
  }
}

int run(int count, char** arguments) {
  std::string_view called = count > 0 ? arguments[0] : "";
  called.remove_prefix(called.rfind('/') + 1);  // npos + 1 is 0
  if (const Tool* const tool = find_tool(called)) return run_tool(*tool, count, arguments);
  const std::string_view word = count > 1 ? arguments[1] : "";
  if (const Tool* const tool = find_tool(word)) return run_tool(*tool, count - 1, arguments + 1);
  if (word == "--version" || word == "-V") {
    fmt::print("{}\n", CONVOY_VERSION);
    return 0;
  }
  if (word == "--help" || word == "-h") {
    print_usage(stdout);
    return 0;
  }
  if (!word.empty()) fmt::print(stderr, "convoy-pdata_tools: there is no tool '{}'\n\n", word);
  print_usage(stderr);
  return 1;
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  return convoy::run(argc, argv);
}
