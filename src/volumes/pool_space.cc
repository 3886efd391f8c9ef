#include "volumes/pool_space.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

std::uint64_t percent(std::uint64_t used, std::uint64_t total) {
  return total == 0 ? 0 : used * 100 / total;
}

}  // namespace

PoolSpace examine_space(const PoolStatus& status, unsigned low_watermark) {
  const std::uint64_t data = percent(status.used_data.count, status.total_data.count);
  const std::uint64_t metadata = percent(status.used_metadata_blocks, status.total_metadata_blocks);
  const std::uint64_t most = std::max(data, metadata);
  PoolSpace space;
  if (most >= low_watermark) space.level = SpaceLevel::kLow;
  if (most >= kRefusalPercent) space.level = SpaceLevel::kRefusing;
  space.used = fmt::format("{} percent of the {} device are used", most,
                           data >= metadata ? "data" : "metadata");
  return space;
}

void require_room(const PoolStatus& status) {
  require_writable(status);
  const PoolSpace space = examine_space(status, kDefaultLowWatermark);
  if (space.level != SpaceLevel::kRefusing) return;
  throw Error(ErrorKind::kNoSpace,
              "the pool has no space for new volumes and snapshots: {}; delete some, trim mounted "
              "volumes, or make the device larger and run 'convoy pool grow'",
              space.used);
}

}  // namespace convoy
