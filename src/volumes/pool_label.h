// The mark at the start of a pool's data device. The metadata device tells its pool by its
// transaction id, but data blocks are anybody's: without the mark, a pool that comes up on another
// device of the same size (two loop devices that changed places, say) would write into whatever is
// there, and a new pool could be made on the volumes of an old one.
//
// Its place: thin device 0, which no volume has, is the first that is written in a new pool, so it
// gets the data device's first block, and keeps it.
#pragma once

#include <filesystem>
#include <optional>

#include "base/uuid.h"
#include "catalog/catalog.h"
#include "devmapper/thin_pool.h"

namespace convoy {

inline constexpr ThinId kLabelThinId{0};

// Marks the pool's data device, the first change of a new pool. May be done again after a crash.
// Throws kInternal if the mark is not where find_label looks for it.
void write_label(ThinPool& pool, const PoolRow& row);

// The UUID of the pool whose data are on this device; nothing if it has no mark. Throws kIo if it
// can't be read.
std::optional<Uuid> find_label(const std::filesystem::path& data_device);

}  // namespace convoy
