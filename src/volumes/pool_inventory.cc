#include "volumes/pool_inventory.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace convoy {

std::vector<FoundDevice> find_devices(Metadata& metadata) {
  std::vector<FoundDevice> devices;
  for (const auto& [thin_id, details] : metadata.devices()) {
    FoundDevice device{.thin_id = thin_id, .details = details, .end = {}};
    metadata.mappings(thin_id, [&](const Mapping& mapping) {
      device.end.count = mapping.block.count + 1;
      // dm-thin-metadata.c, __create_snap: the pool's time goes on by one, and is then the
      // snapshot's creation time; what it shares was mapped before.
      device.written = device.written || mapping.time >= details.creation_time;
    });
    devices.push_back(device);
  }
  return devices;
}

BlockOwners::BlockOwners(Metadata& metadata)
    : metadata_(metadata), owner_of_(metadata.superblock().data_blocks) {}

void BlockOwners::give(std::uint32_t thin_id, std::size_t owner) {
  metadata_.mappings(thin_id, [&](const Mapping& mapping) {
    std::uint32_t& entry = owner_of_.at(mapping.data_block);
    if (entry == 0) entry = static_cast<std::uint32_t>(owner) + 1;
  });
}

std::optional<std::size_t> BlockOwners::find(std::uint32_t thin_id) const {
  std::map<std::uint32_t, std::uint64_t> shared;
  metadata_.mappings(thin_id, [&](const Mapping& mapping) {
    const std::uint32_t entry = owner_of_.at(mapping.data_block);
    if (entry != 0) ++shared[entry];
  });
  const auto most =
      std::ranges::max_element(shared, {}, [](const auto& entry) { return entry.second; });
  if (most == shared.end()) return std::nullopt;
  return most->first - 1;
}

}  // namespace convoy
