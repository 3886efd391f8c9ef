// Blocks that are read before they are asked for.
#include "thinmeta/block_reader.h"

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  const AlignedBuffer content = reader.read(block, BlockKind::kNode);
  return struct_at<Le64>(content.bytes(), sizeof(DiskNodeHeader));
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
  for (const std::uint64_t i : {99U, 50U, 51U, 1U}) {
    EXPECT_TRUE(reader.is_ahead(base + i));
    EXPECT_EQ(first_key(reader, base + i), i);
    EXPECT_FALSE(reader.is_ahead(base + i));
  }
  EXPECT_EQ(reader.blocks_read(), 51U);
  EXPECT_EQ(first_key(reader, base), 0U);        // not ahead
  EXPECT_EQ(first_key(reader, base + 99), 99U);  // once more
  EXPECT_EQ(reader.blocks_read(), 53U);
}

TEST(ReadAhead, ForgetsWhatNobodyReadsWhenItIsTooMuch) {
  const TestImage image = image_of(2 * BlockReader::kMaxAhead);
  const std::uint64_t base = image.blocks() - 2 * BlockReader::kMaxAhead;
  const TestFile file = image.write();
  BlockReader reader(file.open());
  std::vector<std::uint64_t> wanted(BlockReader::kMaxAhead);
  std::iota(wanted.begin(), wanted.end(), base);
  reader.read_ahead(wanted);
  EXPECT_TRUE(reader.is_ahead(base));
  reader.read_ahead({base + BlockReader::kMaxAhead});
  EXPECT_FALSE(reader.is_ahead(base));
  EXPECT_TRUE(reader.is_ahead(base + BlockReader::kMaxAhead));
  EXPECT_EQ(first_key(reader, base), 0U);
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
