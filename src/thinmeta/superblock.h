// The superblock of a thin pool's metadata: where everything else begins.
#pragma once

#include <cstdint>

#include "base/units.h"
#include "sys/block_device.h"
#include "thinmeta/block_reader.h"

namespace convoy {

// Where a space map is, which counts how often each block of a device is referred to.
struct SpaceMapRoot {
  std::uint64_t blocks = 0;  // that the device has
  std::uint64_t bitmap_root = 0;
  std::uint64_t reference_count_root = 0;
};

struct Superblock {
  std::uint64_t transaction_id = 0;  // userspace's own, as set by set_transaction_id
  std::uint32_t time = 0;            // counts the snapshots ever taken in the pool
  std::uint32_t version = 0;         // of the format
  std::uint32_t flags = 0;           // as on disk; needs_check is one of them
  Sectors data_block_size;           // the pool block
  // Size of the metadata in blocks of 4 KiB; the device may be larger.
  std::uint64_t metadata_blocks = 0;
  std::uint64_t data_blocks = 0;  // size of the data device in pool blocks
  std::uint64_t held_root = 0;    // block of the metadata snapshot; 0: none is held
  std::uint64_t mapping_root = 0;
  std::uint64_t details_root = 0;
  SpaceMapRoot data_space_map;  // unlike the trees, never those of a metadata snapshot
  SpaceMapRoot metadata_space_map;
  bool needs_check = false;  // the kernel refuses to write to the pool until thin_check(8) has run
};

enum class MetadataContent { kZero, kThinMetadata, kForeign };

// What the first 4 KiB block of a would-be metadata device holds: zeros only (the kernel would
// format it), the magic number of a thin pool's superblock (whether or not its checksum is right),
// or anything else. Throws kInvalidArgument if the device is smaller than that, kIo if it can't be
// read.
MetadataContent classify_metadata(const BlockDevice& device);

namespace thinmeta {

// The superblock, in block 0; `reader` is limited to the size that it says. Throws kCorrupt,
// kUnsupported (a version or feature that we don't know) or kIo.
Superblock read_superblock(BlockReader& reader);

// The metadata snapshot that `live`, the pool's superblock, points to. reserve_metadata_snap leaves
// there a copy of the superblock, a block like others with its own number and checksum, with the
// space maps wiped and without a held root. So transaction id, time, flags and both trees are of
// the copy; everything else is taken from `live`. Throws kNotFound if nothing is held, else as
// read_superblock does.
Superblock read_held_superblock(BlockReader& reader, const Superblock& live);

}  // namespace thinmeta
}  // namespace convoy
