// What a pool's metadata tell of its devices when nobody else does: which are snapshots, and whose.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "thinmeta/metadata.h"

namespace convoy {

struct FoundDevice {
  std::uint32_t thin_id = 0;
  DeviceDetails details;
  PoolBlocks end;        // behind the last block that is mapped
  bool written = false;  // since it was made. A device that was made as a snapshot, and that nobody
                         // writes to, never is
};

// All devices of the pool, by ascending thin id. Reads all of the metadata.
std::vector<FoundDevice> find_devices(Metadata& metadata);

// Who has which data blocks: 4 bytes for each that the pool has.
class BlockOwners {
 public:
  explicit BlockOwners(Metadata& metadata);

  // The data blocks of this thin device that nobody has yet are `owner`'s.
  void give(std::uint32_t thin_id, std::size_t owner);
  // Who has most of this thin device's data blocks; nothing if nobody has any.
  std::optional<std::size_t> find(std::uint32_t thin_id) const;

 private:
  Metadata& metadata_;
  std::vector<std::uint32_t> owner_of_;  // one more than who has it; 0: nobody
};

}  // namespace convoy
