#include <array>

#include <fmt/format.h>
#include <getopt.h>

#include "base/error.h"
#include "base/limits.h"
#include "pdata/tool.h"

namespace convoy {
namespace {

constexpr const char* kUsage =
    R"(Usage: thin_delta --snap1 ID --snap2 ID [-m[BLOCK]] [--verbose] [--changed-only] DEVICE|FILE
Tells which blocks of two thin devices differ, as XML.

  --snap1, --thin1 ID    the one before
  --snap2, --thin2 ID    the one after
  -m, --metadata-snap[=BLOCK]
                         read the metadata snapshot of a running pool
  --verbose              tell the data blocks, too
  --changed-only         leave out what is the same: the time it takes depends on what changed, not on
                         how large the devices are
  -h, --help
  -V, --version
)";

const char* word_for(const BlockPair& pair) {
  if (!pair.first) return "right_only";
  if (!pair.second) return "left_only";
  return pair.first == pair.second ? "same" : "different";
}

// Successive blocks that are one element of the XML.
struct Run {
  BlockPair begin;
  std::uint64_t length = 0;

  std::uint64_t next_block() const { return begin.block.count + length; }
};

// What the two forms of the output have in common: runs of neighbours with the same word.
class Printer {
 public:
  explicit Printer(bool verbose) : verbose_(verbose) {}

  void add(const BlockPair& pair) {
    if (run_.length > 0 && continues(pair)) {
      ++run_.length;
      return;
    }
    print_run();
    run_ = {pair, 1};
  }

  void finish() {
    print_run();
    if (section_ != nullptr) fmt::print("    </{}>\n", section_);
  }

 private:
  bool continues(const BlockPair& pair) const {
    if (pair.block.count != run_.next_block() || word_for(pair) != word_for(run_.begin))
      return false;
    if (!verbose_) return true;
    const auto follows = [&](const auto& now, const auto& begin) {
      return !now || *now == *begin + run_.length;
    };
    return follows(pair.first, run_.begin.first) && follows(pair.second, run_.begin.second);
  }

  void print_run() {
    if (run_.length == 0) return;
    const char* const word = word_for(run_.begin);
    if (!verbose_) {
      fmt::print("    <{} begin=\"{}\" length=\"{}\"/>\n", word, run_.begin.block.count,
                 run_.length);
      return;
    }
    if (word != section_) {
      if (section_ != nullptr) fmt::print("    </{}>\n", section_);
      fmt::print("    <{}>\n", word);
      section_ = word;
    }
    fmt::print("      <range begin=\"{}\" {} length=\"{}\"/>\n", run_.begin.block.count,
               data_attributes(), run_.length);
  }

  std::string data_attributes() const {
    const auto& [block, first, second] = run_.begin;
    if (first && second && first != second)
      return fmt::format(R"(left_data_begin="{}" right_data_begin="{}")", *first, *second);
    return fmt::format("data_begin=\"{}\"", first ? *first : *second);
  }

  bool verbose_;
  Run run_;
  const char* section_ = nullptr;  // that is open
};

struct Options {
  MetadataChoice metadata;
  std::optional<std::uint32_t> first;
  std::optional<std::uint32_t> second;
  bool verbose = false;
  Same same = Same::kVisited;
};

std::uint32_t parse_thin_id(const char* text) {
  const std::uint64_t id = parse_number(text, "thin id");
  if (id > kMaxThinId)
    throw Error(ErrorKind::kNotFound, "there is no thin device {}: ids end at {}", id, kMaxThinId);
  return static_cast<std::uint32_t>(id);
}

void print_delta(const std::string& device, const Options& options) {
  Metadata metadata = open_metadata(device, options.metadata);
  const Superblock& superblock = metadata.superblock();
  const bool held = options.metadata.root == Root::kHeld;
  // Nothing is printed for devices that are not there.
  with_context(device, [&] {
    for (const auto& id : {options.first, options.second}) metadata.require_device(*id);
  });
  // A metadata snapshot doesn't say how large the data device is, and where it is itself is said by
  // the pool's superblock alone.
  fmt::print(
      "<superblock uuid=\"\" time=\"{}\" transaction=\"{}\" data_block_size=\"{}\" "
      "nr_data_blocks=\"{}\"",
      superblock.time, superblock.transaction_id, superblock.data_block_size.count,
      held ? 0 : superblock.data_blocks);
  if (!held && superblock.held_root != 0) fmt::print(" metadata_snap=\"{}\"", superblock.held_root);
  fmt::print(">\n  <diff left=\"{}\" right=\"{}\">\n", *options.first, *options.second);
  Printer printer(options.verbose);
  metadata.compare(options.first, *options.second, options.same,
                   [&](const BlockPair& pair) { printer.add(pair); });
  printer.finish();
  fmt::print("  </diff>\n</superblock>\n");
}

int run(int count, char** arguments) {
  enum : int { kFirst = 1, kSecond, kVerbose, kChangedOnly };
  const std::array<option, 10> known = {{{"snap1", required_argument, nullptr, kFirst},
                                         {"thin1", required_argument, nullptr, kFirst},
                                         {"snap2", required_argument, nullptr, kSecond},
                                         {"thin2", required_argument, nullptr, kSecond},
                                         {"metadata-snap", optional_argument, nullptr, 'm'},
                                         {"verbose", no_argument, nullptr, kVerbose},
                                         {"changed-only", no_argument, nullptr, kChangedOnly},
                                         {"help", no_argument, nullptr, 'h'},
                                         {"version", no_argument, nullptr, 'V'},
                                         {}}};
  Options options;
  for (int c = 0; (c = getopt_long(count, arguments, "m::hV", known.data(), nullptr)) != -1;) {
    switch (c) {
      case kFirst:
        options.first = parse_thin_id(optarg);
        break;
      case kSecond:
        options.second = parse_thin_id(optarg);
        break;
      case 'm':
        options.metadata = parse_metadata_choice(optarg);
        break;
      case kVerbose:
        options.verbose = true;
        break;
      case kChangedOnly:
        options.same = Same::kSkipped;
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
  const std::string device = only_operand(count, arguments, "the metadata device, or a file");
  if (!options.first) throw Error(ErrorKind::kInvalidArgument, "give --snap1");
  if (!options.second) throw Error(ErrorKind::kInvalidArgument, "give --snap2");
  print_delta(device, options);
  return 0;
}

}  // namespace

const Tool kThinDelta = {"thin_delta", "tell which blocks of two thin devices differ", &run};

}  // namespace convoy
