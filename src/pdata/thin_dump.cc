#include <array>
#include <memory>
#include <set>
#include <string_view>

#include <fmt/format.h>
#include <getopt.h>

#include "base/error.h"
#include "pdata/tool.h"

namespace convoy {
namespace {

constexpr const char* kUsage =
    R"(Usage: thin_dump [-f FORMAT] [-m[BLOCK]] [-o FILE] [-r] [--dev-id ID]... [--skip-mappings] DEVICE|FILE
Prints a thin pool's metadata; thin_restore(8) takes them as XML.

  -f, --format xml|human_readable
  -m, --metadata-snap[=BLOCK]
                         read the metadata snapshot of a running pool
  -o, --output FILE      write to FILE
  -r, --repair           of damaged devices, print what comes before the damage, and go on
  --dev-id ID            this thin device only; may be given again
  --skip-mappings        without the devices' blocks
  -h, --help
  -V, --version
)";

// Successive blocks whose data blocks are neighbours, too, mapped at the same time.
struct MappedRun {
  Mapping begin;
  std::uint64_t length = 0;

  bool continued_by(const Mapping& mapping) const {
    return length > 0 && mapping.time == begin.time &&
           mapping.block.count == begin.block.count + length &&
           mapping.data_block == begin.data_block + length;
  }
};

class Format {
 public:
  explicit Format(std::FILE* out) : out_(out) {}
  Format(const Format&) = delete;
  Format& operator=(const Format&) = delete;
  virtual ~Format() = default;

  virtual void begin(const Superblock& superblock, std::uint64_t data_blocks) = 0;
  virtual void begin_device(std::uint32_t thin_id, const DeviceDetails& details) = 0;
  virtual void run(const MappedRun& run) = 0;
  virtual void end_device() = 0;
  virtual void end() = 0;

 protected:
  std::FILE* out() const { return out_; }

 private:
  std::FILE* out_;
};

class Xml : public Format {
 public:
  using Format::Format;

  void begin(const Superblock& superblock, std::uint64_t data_blocks) override {
    fmt::print(out(),
               "<superblock uuid=\"\" time=\"{}\" transaction=\"{}\" flags=\"{}\" version=\"{}\" "
               "data_block_size=\"{}\" nr_data_blocks=\"{}\">\n",
               superblock.time, superblock.transaction_id, superblock.flags, superblock.version,
               superblock.data_block_size.count, data_blocks);
  }
  void begin_device(std::uint32_t thin_id, const DeviceDetails& details) override {
    fmt::print(out(),
               "  <device dev_id=\"{}\" mapped_blocks=\"{}\" transaction=\"{}\" "
               "creation_time=\"{}\" snap_time=\"{}\">\n",
               thin_id, details.mapped_blocks, details.transaction_id, details.creation_time,
               details.snapshotted_time);
  }
  void run(const MappedRun& run) override {
    const auto& [block, data_block, time] = run.begin;
    if (run.length == 1) {
      fmt::print(out(), "    <single_mapping origin_block=\"{}\" data_block=\"{}\" time=\"{}\"/>\n",
                 block.count, data_block, time);
    } else {
      fmt::print(out(),
                 "    <range_mapping origin_begin=\"{}\" data_begin=\"{}\" length=\"{}\" "
                 "time=\"{}\"/>\n",
                 block.count, data_block, run.length, time);
    }
  }
  void end_device() override { fmt::print(out(), "  </device>\n"); }
  void end() override { fmt::print(out(), "</superblock>\n"); }
};

class HumanReadable : public Format {
 public:
  using Format::Format;

  void begin(const Superblock& superblock, std::uint64_t data_blocks) override {
    fmt::print(out(), "begin superblock: \"\", {}, {}, {}, {}, {}, {}\n", superblock.time,
               superblock.transaction_id, superblock.flags, superblock.version,
               superblock.data_block_size.count, data_blocks);
  }
  void begin_device(std::uint32_t thin_id, const DeviceDetails& details) override {
    fmt::print(out(),
               "device: {}\nmapped_blocks: {}\ntransaction: {}\ncreation time: {}\nsnap time: {}\n",
               thin_id, details.mapped_blocks, details.transaction_id, details.creation_time,
               details.snapshotted_time);
  }
  void run(const MappedRun& run) override {
    const auto& [block, data_block, time] = run.begin;
    if (run.length == 1) {
      fmt::print(out(), "    {} -> {}, {}\n", block.count, data_block, time);
    } else {
      fmt::print(out(), "    ({}..{}) -> ({}..{}), {}\n", block.count, block.count + run.length - 1,
                 data_block, data_block + run.length - 1, time);
    }
  }
  void end_device() override { fmt::print(out(), "\n"); }
  void end() override { fmt::print(out(), "end superblock\n"); }
};

std::unique_ptr<Format> make_format(std::string_view name, std::FILE* out) {
  if (name == "xml") return std::make_unique<Xml>(out);
  if (name == "human_readable") return std::make_unique<HumanReadable>(out);
  throw Error(ErrorKind::kInvalidArgument, "there is no format '{}': choose xml or human_readable",
              name);
}

struct Options {
  MetadataChoice metadata;
  std::string format = "xml";
  std::string output;
  bool repair = false;
  std::set<std::uint64_t> thin_ids;  // empty: all
  bool skip_mappings = false;
};

void dump_mappings(Metadata& metadata, std::uint32_t thin_id, bool repair, Format& format) {
  MappedRun run;
  try {
    metadata.mappings(thin_id, [&](const Mapping& mapping) {
      if (run.continued_by(mapping)) {
        ++run.length;
        return;
      }
      if (run.length > 0) format.run(run);
      run = {mapping, 1};
    });
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt || !repair) throw;
    fmt::print(stderr, "thin_dump: thin device {} is not complete: {}\n", thin_id, error.message());
  }
  if (run.length > 0) format.run(run);
}

void dump(Metadata& metadata, const Options& options, Format& format) {
  // A metadata snapshot doesn't say how large the data device is.
  const bool held = options.metadata.root == Root::kHeld;
  const auto devices = metadata.devices();
  format.begin(metadata.superblock(), held ? 0 : metadata.superblock().data_blocks);
  for (const auto& [thin_id, details] : devices) {
    if (!options.thin_ids.empty() && !options.thin_ids.contains(thin_id)) continue;
    format.begin_device(thin_id, details);
    if (!options.skip_mappings) dump_mappings(metadata, thin_id, options.repair, format);
    format.end_device();
  }
  format.end();
}

struct Close {
  void operator()(std::FILE* file) const { static_cast<void>(std::fclose(file)); }
};

int run(int count, char** arguments) {
  enum : int { kDevice = 1, kSkipMappings };
  const std::array<option, 9> known = {{{"format", required_argument, nullptr, 'f'},
                                        {"metadata-snap", optional_argument, nullptr, 'm'},
                                        {"output", required_argument, nullptr, 'o'},
                                        {"repair", no_argument, nullptr, 'r'},
                                        {"dev-id", required_argument, nullptr, kDevice},
                                        {"skip-mappings", no_argument, nullptr, kSkipMappings},
                                        {"help", no_argument, nullptr, 'h'},
                                        {"version", no_argument, nullptr, 'V'},
                                        {}}};
  Options options;
  for (int c = 0; (c = getopt_long(count, arguments, "f:m::o:rhV", known.data(), nullptr)) != -1;) {
    switch (c) {
      case 'f':
        options.format = optarg;
        break;
      case 'm':
        options.metadata = parse_metadata_choice(optarg);
        break;
      case 'o':
        options.output = optarg;
        break;
      case 'r':
        options.repair = true;
        break;
      case kDevice:
        options.thin_ids.insert(parse_number(optarg, "thin id"));
        break;
      case kSkipMappings:
        options.skip_mappings = true;
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
  make_format(options.format, stdout);  // or throws
  Metadata metadata = open_metadata(device, options.metadata);
  if (options.output.empty()) {
    dump(metadata, options, *make_format(options.format, stdout));
    return 0;
  }
  const std::unique_ptr<std::FILE, Close> file(std::fopen(options.output.c_str(), "we"));
  if (!file) throw system_error(errno, options.output);
  dump(metadata, options, *make_format(options.format, file.get()));
  if (std::fflush(file.get()) != 0) throw system_error(errno, options.output);
  return 0;
}

}  // namespace

const Tool kThinDump = {"thin_dump", "print a pool's metadata", &run};

}  // namespace convoy
