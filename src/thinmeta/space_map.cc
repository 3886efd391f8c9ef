#include "thinmeta/space_map.h"

#include <fmt/format.h>

#include "base/error.h"
#include "thinmeta/disk_format.h"

namespace convoy::thinmeta {

std::uint64_t bitmaps_of(const SpaceMapRoot& root) {
  return (root.blocks + kBlocksPerBitmap - 1) / kBlocksPerBitmap;
}

std::vector<std::uint64_t> read_bitmap_index(BlockReader& reader, const SpaceMapRoot& metadata) {
  const std::uint64_t block = metadata.bitmap_root;
  return with_context(fmt::format("index of the metadata space map, block {}", block), [&] {
    const Block index = reader.read(block, BlockKind::kBitmapIndex);
    const std::uint64_t count = bitmaps_of(metadata);
    if (count > kBitmapsOfMetadata) {
      throw Error(ErrorKind::kCorrupt, "it would need {} bitmaps, and has room for {}", count,
                  kBitmapsOfMetadata);
    }
    std::vector<std::uint64_t> bitmaps;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t offset = sizeof(DiskBlockHeader) + i * sizeof(DiskBitmapEntry);
      bitmaps.push_back(struct_at<DiskBitmapEntry>(index->bytes(), offset).block);
    }
    return bitmaps;
  });
}

std::uint32_t count_in_bitmap(const AlignedBuffer& bitmap, std::uint64_t number) {
  const auto bits = bitmap.bytes().subspan(sizeof(DiskBlockHeader));
  const auto byte = std::to_integer<unsigned>(bits[number / 4]);
  const unsigned pair = byte >> (number % 4 * 2) & 3U;
  return (pair & 1U) << 1U | pair >> 1U;
}

std::uint32_t metadata_references(BlockReader& reader, const SpaceMapRoot& metadata,
                                  std::uint64_t block) {
  const std::vector<std::uint64_t> bitmaps = read_bitmap_index(reader, metadata);
  const std::uint64_t number = block / kBlocksPerBitmap;
  return with_context(fmt::format("bitmap {} of the metadata space map", number), [&] {
    if (block >= metadata.blocks) throw Error(ErrorKind::kCorrupt, "it has no block {}", block);
    const Block bitmap = reader.read(bitmaps[number], BlockKind::kBitmap);
    return count_in_bitmap(*bitmap, block % kBlocksPerBitmap);
  });
}

}  // namespace convoy::thinmeta
