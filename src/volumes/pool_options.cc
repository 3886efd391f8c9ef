#include "volumes/pool_options.h"

#include <charconv>
#include <set>

#include "base/error.h"
#include "base/limits.h"
#include "base/name.h"
#include "base/size.h"
#include "volumes/filesystem.h"

namespace convoy {
namespace {

constexpr const char* kKnownOptions =
    "dm.datadev, dm.metadatadev, dm.thinpoolname, dm.thinpoolblocksize, dm.defaultvolumesize, "
    "dm.fs, dm.lowwatermark, dm.whenfull";

template <typename Number>
std::optional<Number> parse_number(const std::string& value) {
  Number number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size()) return std::nullopt;
  return number;
}

std::filesystem::path parse_device(const std::string& key, const std::string& value) {
  if (!value.starts_with('/')) {
    throw Error(ErrorKind::kInvalidArgument,
                "{}={}: give the absolute path of a block device, such as /dev/sdb1", key, value);
  }
  return value;
}

Sectors parse_block_size(const std::string& value) {
  const auto sectors = parse_number<std::uint64_t>(value);
  if (!sectors || *sectors < kMinPoolBlock.count || *sectors > kMaxPoolBlock.count ||
      *sectors % kMinPoolBlock.count != 0) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.thinpoolblocksize={}: give a number of 512-byte sectors from {} (64 KiB) to {} "
                "(1 GiB) that is a multiple "
                "of {}, such as {} (2 MiB)",
                value, kMinPoolBlock.count, kMaxPoolBlock.count, kMinPoolBlock.count,
                kDefaultPoolBlock.count);
  }
  return {*sectors};
}

unsigned parse_low_watermark(const std::string& value) {
  const auto percent = parse_number<unsigned>(value);
  if (!percent || *percent < 1 || *percent >= kRefusalPercent) {
    throw Error(
        ErrorKind::kInvalidArgument,
        "dm.lowwatermark={}: give a percentage from 1 to {} of the pool's space: from there "
        "on its use is warned of, and from {} on it takes no new volumes",
        value, kRefusalPercent - 1, kRefusalPercent);
  }
  return *percent;
}

// Whether writes wait.
bool parse_when_full(const std::string& value) {
  if (value == "error" || value == "queue") return value == "queue";
  throw Error(ErrorKind::kInvalidArgument,
              "dm.whenfull={}: say what becomes of writes to a pool that is full: error, or queue "
              "(they wait for a minute)",
              value);
}

std::string parse_pool_name(const std::string& value) {
  check_name("thin pool", value);
  // /dev/mapper/control is device mapper's own.
  if (value == "control")
    throw Error(ErrorKind::kInvalidArgument,
                "dm.thinpoolname=control: device mapper uses that name itself");
  return value;
}

std::uint64_t parse_default_size(const std::string& value) {
  const std::uint64_t size =
      with_context("dm.defaultvolumesize", [&] { return parse_size(value); });
  if (size == 0 || size > kMaxVolumeSize) {
    throw Error(ErrorKind::kInvalidArgument, "dm.defaultvolumesize={}: give a size up to {}", value,
                format_size(kMaxVolumeSize));
  }
  return size;
}

}  // namespace

PoolOptions parse_pool_options(const std::vector<std::string>& words) {
  PoolOptions options;
  std::set<std::string> seen;
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals + 1 == word.size()) {
      throw Error(ErrorKind::kInvalidArgument,
                  "--driver-opts {}: give KEY=VALUE, such as dm.datadev=/dev/sdb1", word);
    }
    const std::string key = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    if (!seen.insert(key).second)
      throw Error(ErrorKind::kInvalidArgument, "the driver option {} is given twice", key);
    if (key == "dm.datadev") {
      options.data_device = parse_device(key, value);
    } else if (key == "dm.metadatadev") {
      options.metadata_device = parse_device(key, value);
    } else if (key == "dm.thinpoolname") {
      options.pool_name = parse_pool_name(value);
    } else if (key == "dm.thinpoolblocksize") {
      options.block_size = parse_block_size(value);
    } else if (key == "dm.defaultvolumesize") {
      options.default_volume_size = parse_default_size(value);
    } else if (key == "dm.fs") {
      with_context("dm.fs", [&] { check_filesystem(value); });
      options.filesystem = value;
    } else if (key == "dm.lowwatermark") {
      options.low_watermark = parse_low_watermark(value);
    } else if (key == "dm.whenfull") {
      options.queue_when_full = parse_when_full(value);
    } else {
      throw Error(ErrorKind::kInvalidArgument, "unknown driver option '{}'; there are {}", key,
                  kKnownOptions);
    }
  }
  return options;
}

}  // namespace convoy
