// The on-disk structures of a thin pool's metadata, field by field. Nothing else knows an offset.
//
// Source: the kernel's drivers/md/dm-thin-metadata.c (superblock, device details, mapping values)
// and drivers/md/persistent-data/dm-btree-internal.h (nodes), dm-space-map-common.h (space map
// roots), dm-block-manager.c and dm-btree-spine.c (checksums).
//
// The metadata device is an array of 4 KiB blocks. Block 0 is the superblock. It leads to two
// B-trees:
//   - device details: thin id -> DiskDeviceDetails
//   - mappings:       thin id -> root of a tree of its own, which maps block of the device ->
//   DiskMapping
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "base/bytes.h"

namespace convoy::thinmeta {

inline constexpr std::size_t kBlockSize = 4096;

// The structure that lies at `offset` in `block`, which must be that long.
template <typename Struct>
Struct struct_at(std::span<const std::byte> block, std::size_t offset) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  Struct value;
  std::memcpy(&value, block.subspan(offset, sizeof value).data(), sizeof value);
  return value;
}

// Every kind of block begins with these. The checksum is CRC-32C of all that follows it, xored with
// a constant of the kind, so that a block of one kind never passes for one of another.
struct DiskBlockHeader {
  Le32 checksum;
  Le32 flags;
  Le64 own_number;
};
static_assert(sizeof(DiskBlockHeader) == 16);

inline constexpr std::uint32_t kSuperblockChecksumXor = 160774;
inline constexpr std::uint32_t kNodeChecksumXor = 121107;
inline constexpr std::uint32_t kBitmapChecksumXor = 240779;
inline constexpr std::uint32_t kBitmapIndexChecksumXor = 160478;

// --- Superblock ----------------------------------------------------------------------------------

inline constexpr std::uint64_t kSuperblockNumber = 0;
inline constexpr std::uint64_t kSuperblockMagic = 27022010;

// Version 2 came with the flag kNeedsCheck (Linux 3.14); nothing else differs. The kernel itself
// looks at incompat_flags only.
inline constexpr std::uint32_t kOldestVersion = 1;
inline constexpr std::uint32_t kNewestVersion = 2;

// In DiskBlockHeader::flags.
inline constexpr std::uint32_t kNeedsCheck = 1;

// A space map's root has room for 128 bytes, of which this much is used.
struct DiskSpaceMapRoot {
  Le64 blocks;
  Le64 allocated_blocks;
  Le64 bitmap_root;
  Le64 reference_count_root;
  std::byte unused[96];
};
static_assert(sizeof(DiskSpaceMapRoot) == 128);

struct DiskSuperblock {
  DiskBlockHeader header;
  std::byte uuid[16];
  Le64 magic;
  Le32 version;
  Le32 time;  // counts snapshots
  Le64 transaction_id;
  Le64 held_root;
  DiskSpaceMapRoot data_space_map;
  DiskSpaceMapRoot metadata_space_map;
  Le64 mapping_root;
  Le64 details_root;
  Le32 data_block_sectors;
  Le32 metadata_block_sectors;     // never read, not by the kernel either: 8 always
  Le64 metadata_blocks_at_format;  // not changed when the metadata grow: the space map's is right
  Le32 compat_flags;
  Le32 compat_ro_flags;
  Le32 incompat_flags;
};
static_assert(offsetof(DiskSuperblock, magic) == 32);
static_assert(offsetof(DiskSuperblock, transaction_id) == 48);
static_assert(offsetof(DiskSuperblock, data_space_map) == 64);
static_assert(offsetof(DiskSuperblock, metadata_space_map) == 192);
static_assert(offsetof(DiskSuperblock, mapping_root) == 320);
static_assert(offsetof(DiskSuperblock, data_block_sectors) == 336);
static_assert(offsetof(DiskSuperblock, incompat_flags) == 360);
static_assert(sizeof(DiskSuperblock) == 364);

// --- B-tree nodes --------------------------------------------------------------------------------

// In DiskBlockHeader::flags; exactly one of them is set.
inline constexpr std::uint32_t kInnerNode = 1;
inline constexpr std::uint32_t kLeafNode = 2;

// Followed by max_entries keys of 8 bytes, then max_entries values, of which the first `entries`
// are in use. The values of an inner node are numbers of its children's blocks; key i is the lowest
// that child i may hold.
struct DiskNodeHeader {
  DiskBlockHeader header;
  Le32 entries;
  Le32 max_entries;
  Le32 value_size;
  Le32 padding;
};
static_assert(sizeof(DiskNodeHeader) == 32);

inline constexpr std::uint32_t kKeySize = 8;
inline constexpr std::uint32_t kChildSize = 8;

// How many entries the kernel gives a node whose values have this size: as many as fit, rounded
// down to a multiple of three.
constexpr std::uint32_t max_entries_of(std::uint32_t value_size) {
  return static_cast<std::uint32_t>((kBlockSize - sizeof(DiskNodeHeader)) /
                                    (kKeySize + value_size) / 3 * 3);
}
static_assert(max_entries_of(kChildSize) == 252);

// --- Values of leaves ----------------------------------------------------------------------------

struct DiskDeviceDetails {
  Le64 mapped_blocks;
  Le64 transaction_id;
  Le32 creation_time;
  Le32 snapshotted_time;
};
static_assert(sizeof(DiskDeviceDetails) == 24);
static_assert(max_entries_of(sizeof(DiskDeviceDetails)) == 126);

// A data block's number in the upper 40 bits, and the superblock's time when it was mapped in the
// lower 24.
using DiskMapping = Le64;
inline constexpr unsigned kMappingTimeBits = 24;
inline constexpr std::uint64_t kMaxDataBlocks = std::uint64_t{1} << (64 - kMappingTimeBits);

// --- Space maps ----------------------------------------------------------------------------------

// Two bits for each block of a device, which follow a DiskBlockHeader: how often it is referred to,
// with the higher bit first. kCountInTree stands for that and all that is more: the tree of
// reference counts (block -> Le32) has it.
inline constexpr std::uint64_t kBlocksPerBitmap = (kBlockSize - sizeof(DiskBlockHeader)) * 4;
inline constexpr std::uint32_t kCountInTree = 3;

// One for each bitmap. The data space map has them in a tree (number of the bitmap ->
// DiskBitmapEntry), the metadata's own in one block, behind a DiskBlockHeader.
struct DiskBitmapEntry {
  Le64 block;
  Le32 free;
  Le32 none_free_before;
};
static_assert(sizeof(DiskBitmapEntry) == 16);
inline constexpr std::size_t kBitmapsOfMetadata =
    (kBlockSize - sizeof(DiskBlockHeader)) / sizeof(DiskBitmapEntry);
static_assert(kBitmapsOfMetadata == 255);

}  // namespace convoy::thinmeta
