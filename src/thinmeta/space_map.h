// How often blocks of the metadata are referred to, as their own space map says.
#pragma once

#include <cstdint>
#include <vector>

#include "thinmeta/block_reader.h"
#include "thinmeta/superblock.h"

namespace convoy::thinmeta {

// Of a space map that has so many blocks.
std::uint64_t bitmaps_of(const SpaceMapRoot& root);

// The blocks of the bitmaps of the metadata's own space map, in order. Throws kCorrupt, naming the
// block, and kIo.
std::vector<std::uint64_t> read_bitmap_index(BlockReader& reader, const SpaceMapRoot& metadata);

// Of the block with this number among a bitmap's own, below kBlocksPerBitmap: how often it is
// referred to; kCountInTree stands for so often or more.
std::uint32_t count_in_bitmap(const AlignedBuffer& bitmap, std::uint64_t number);

// How often `block` of the metadata is referred to; kCountInTree stands for so often or more.
// Throws as read_bitmap_index does, and kCorrupt if there is no such block.
std::uint32_t metadata_references(BlockReader& reader, const SpaceMapRoot& metadata,
                                  std::uint64_t block);

}  // namespace convoy::thinmeta
