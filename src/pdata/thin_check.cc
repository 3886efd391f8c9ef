#include <array>

#include <fmt/format.h>
#include <getopt.h>

#include "base/error.h"
#include "pdata/tool.h"

namespace convoy {
namespace {

constexpr const char* kUsage = R"(Usage: thin_check [OPTION...] DEVICE|FILE
Looks for damage in a thin pool's metadata: in the superblock, the trees of devices and mappings, and
the counts of both space maps.

  -q, --quiet            say nothing; the exit status tells
  -m, --metadata-snap    the metadata snapshot of a running pool, without space maps
  --super-block-only
  --skip-mappings        the superblock and the devices only
  --ignore-non-fatal-errors
                         blocks that are lost to the pool are no reason to fail
  -h, --help
  -V, --version

It ends with 0 if there is no damage. What to do else: see docs/operations.md.
)";

struct Options {
  MetadataChoice metadata;
  CheckDepth depth = CheckDepth::kSpaceMaps;
  bool quiet = false;
  bool ignore_leaks = false;
};

int check(const std::string& device, const Options& options) {
  const auto say = [&](std::FILE* out, const std::string& text) {
    if (!options.quiet) fmt::print(out, "{}\n", text);
  };
  Metadata metadata = open_metadata(device, options.metadata);
  int status = 0;
  metadata.check(options.depth,
                 {[&](const char* part) {
                    const bool counts = std::string_view(part).ends_with("counts");
                    say(stderr, fmt::format("{} {}", counts ? "checking" : "examining", part));
                    if (std::string_view(part) != "superblock") return;
                    // All but the superblock: what Debian's tool prints, too.
                    say(stdout, fmt::format("TRANSACTION_ID={}\nMETADATA_FREE_BLOCKS={}",
                                            metadata.superblock().transaction_id,
                                            metadata.device_blocks() - 1));
                  },
                  [&](const Finding& finding) {
                    say(stderr, "  " + finding.sentence);
                    const bool leak = finding.kind == Finding::Kind::kLeak;
                    if (!leak || !options.ignore_leaks) status = 1;
                  }});
  if (metadata.superblock().needs_check) {
    say(stderr,
        "  the kernel has marked the metadata as needing a check, and won't write to the pool "
        "until "
        "thin_check --clear-needs-check-flag of the thin-provisioning-tools has run");
  }
  return status;
}

int run(int count, char** arguments) {
  enum : int { kSuperblockOnly = 1, kSkipMappings, kIgnoreLeaks };
  const std::array<option, 8> known = {
      {{"quiet", no_argument, nullptr, 'q'},
       {"metadata-snap", no_argument, nullptr, 'm'},
       {"super-block-only", no_argument, nullptr, kSuperblockOnly},
       {"skip-mappings", no_argument, nullptr, kSkipMappings},
       {"ignore-non-fatal-errors", no_argument, nullptr, kIgnoreLeaks},
       {"help", no_argument, nullptr, 'h'},
       {"version", no_argument, nullptr, 'V'},
       {}}};
  Options options;
  for (int c = 0; (c = getopt_long(count, arguments, "qmhV", known.data(), nullptr)) != -1;) {
    switch (c) {
      case 'q':
        options.quiet = true;
        break;
      case 'm':
        options.metadata = parse_metadata_choice(nullptr);
        break;
      case kSuperblockOnly:
        options.depth = std::min(options.depth, CheckDepth::kSuperblock);
        break;
      case kSkipMappings:
        options.depth = std::min(options.depth, CheckDepth::kDevices);
        break;
      case kIgnoreLeaks:
        options.ignore_leaks = true;
        break;
      case 'h':
        fmt::print("{}", kUsage);
        return 0;
      case 'V':
        fmt::print("{}\n", CONVOY_VERSION);
        return 0;
      default:
        return kUsageError;
    }
  }
  if (options.metadata.root == Root::kHeld)
    options.depth = std::min(options.depth, CheckDepth::kMappings);
  const std::string device = only_operand(count, arguments, "the metadata device, or a file");
  try {
    return check(device, options);
  } catch (const Error&) {
    if (!options.quiet) throw;
    return 1;
  }
}

}  // namespace

const Tool kThinCheck = {"thin_check", "look for damage in a pool's metadata", &run};

}  // namespace convoy
