// Blocks that are read before they are asked for.
#include "thinmeta/block_reader.h"

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "thinmeta/superblock.h"
#include "thinmeta/test_image.h"

namespace convoy::thinmeta {
namespace {

// Leaves, each with its own key; blocks 0 to 2 are the image's own.
TestImage image_of(std::uint64_t leaves) {
  TestImage image;
  for (std::uint64_t i = 0; i < leaves; ++i) image.add_leaf({{i, mapping(i)}});
  return image;
}

std::uint64_t first_key(BlockReader& reader, std::uint64_t block) {
  const Block content = reader.read(block, BlockKind::kNode);
  return struct_at<Le64>(content->bytes(), sizeof(DiskNodeHeader));
}

TEST(ReadAhead, TakesBlocksInAnyOrderAndReadsEachOnce) {
  const TestImage image = image_of(100);
  const std::uint64_t base = image.blocks() - 100;
  const TestFile file = image.write();
  BlockReader reader(file.open());
  std::vector<std::uint64_t> wanted;
  for (std::uint64_t i = 100; i > 0; i -= 2) wanted.push_back(base + i - 1);
  wanted.push_back(base + 50);       // a neighbour of two
  wanted.push_back(base + 51);       // twice
  wanted.push_back(image.blocks());  // beyond the end
  reader.read_ahead(wanted);
  EXPECT_EQ(reader.blocks_read(), 51U);
  for (const std::uint64_t i : {99U, 50U, 51U, 1U, 99U}) {
    EXPECT_TRUE(reader.is_ahead(base + i));
    EXPECT_EQ(first_key(reader, base + i), i);
  }
  reader.read_ahead({base + 1, base + 99});
  EXPECT_EQ(reader.blocks_read(), 51U);
  EXPECT_EQ(first_key(reader, base), 0U);  // not ahead
  EXPECT_EQ(first_key(reader, base), 0U);
  EXPECT_EQ(reader.blocks_read(), 52U);
}

TEST(ReadAhead, ForgetsWhatWasNotAskedForLately) {
  constexpr std::uint64_t kGeneration = BlockReader::kMaxAhead;
  const TestImage image = image_of(3 * kGeneration);
  const std::uint64_t base = image.blocks() - 3 * kGeneration;
  const TestFile file = image.write();
  BlockReader reader(file.open());
  const auto read_generation = [&](std::uint64_t number) {
    std::vector<std::uint64_t> wanted(kGeneration);
    std::iota(wanted.begin(), wanted.end(), base + number * kGeneration);
    reader.read_ahead(std::move(wanted));
  };
  read_generation(0);
  read_generation(1);
  EXPECT_EQ(first_key(reader, base), 0U);
  read_generation(2);
  EXPECT_TRUE(reader.is_ahead(base));
  EXPECT_FALSE(reader.is_ahead(base + 1));
  EXPECT_EQ(first_key(reader, base + 1), 1U);
}

TEST(ReadAhead, IsNotForSuperblocksWhichTheKernelChangesInPlace) {
  TestImage image;
  TestFile file = image.write();
  BlockReader reader(file.open());
  EXPECT_EQ(read_superblock(reader).transaction_id, 77U);
  image.at<DiskSuperblock>(kSuperblockNumber).transaction_id = 78;
  image.seal_superblock();
  file.write(0, image.bytes());
  EXPECT_EQ(read_superblock(reader).transaction_id, 78U);
}

TEST(ReadAhead, LeavesDamageToTheRead) {
  TestImage image = image_of(3);
  const std::uint64_t base = image.blocks() - 3;
  image.at<DiskBlockHeader>(base + 1).checksum = 0;
  TestFile file = image.write();
  BlockReader reader(file.open());
  file.truncate((base + 2) * kBlockSize);  // and the last one can't be read
  reader.read_ahead({base, base + 1});
  reader.read_ahead({base + 2});
  EXPECT_EQ(first_key(reader, base), 0U);
  EXPECT_THROW(first_key(reader, base + 1), Error);
  EXPECT_FALSE(reader.is_ahead(base + 2));
  EXPECT_THROW(first_key(reader, base + 2), Error);
}

}  // namespace
}  // namespace convoy::thinmeta
