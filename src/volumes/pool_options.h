// The devicemapper driver's options, as --driver-opts gives them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"

namespace convoy {

// What is not given stays empty: on a pool's first start it has a default, later the catalog knows.
struct PoolOptions {
  std::optional<std::filesystem::path> data_device;
  std::optional<std::filesystem::path> metadata_device;
  std::optional<std::string> pool_name;
  std::optional<Sectors> block_size;
  std::optional<std::uint64_t> default_volume_size;
  std::optional<std::string> filesystem;
  std::optional<unsigned> low_watermark;  // percent
  std::optional<bool> queue_when_full;
};

// Parses "dm.key=value" words. Throws kInvalidArgument for an unknown or repeated key, or a value
// that is out of range, with a sentence that says what is right. Whether the devices will do is not
// looked at here.
PoolOptions parse_pool_options(const std::vector<std::string>& words);

}  // namespace convoy
