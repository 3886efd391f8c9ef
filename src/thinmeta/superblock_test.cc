// What a metadata device holds at its start, and what becomes of a superblock that is not as it
// should be.
#include "thinmeta/superblock.h"

#include <chrono>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/limits.h"
#include "thinmeta/test_image.h"

namespace convoy::thinmeta {
namespace {

using testing::HasSubstr;

Error failure_of(const TestImage& image, Root root = Root::kLive) {
  try {
    image.open(root);
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::kInternal, "it was read"};
}

TEST(ClassifyMetadata, KnowsZerosWhichTheKernelWouldFormat) {
  TestFile file(2 * kMiB);
  EXPECT_EQ(classify_metadata(file.open()), MetadataContent::kZero);
  // Only the first block counts, for the kernel too.
  file.write(kBlockSize, as_bytes("something"));
  EXPECT_EQ(classify_metadata(file.open()), MetadataContent::kZero);
}

TEST(ClassifyMetadata, KnowsAThinPoolEvenIfItsSuperblockIsDamaged) {
  TestImage image;
  EXPECT_EQ(classify_metadata(image.write().open()), MetadataContent::kThinMetadata);
  image.at<DiskBlockHeader>(0).checksum = 0;
  EXPECT_EQ(classify_metadata(image.write().open()), MetadataContent::kThinMetadata);
}

TEST(ClassifyMetadata, TakesAnythingElseForForeign) {
  for (const std::uint64_t offset : {0U, 32U, 4095U}) {
    TestFile file(kBlockSize);
    file.write(offset, as_bytes("x"));
    EXPECT_EQ(classify_metadata(file.open()), MetadataContent::kForeign) << offset;
  }
}

TEST(ClassifyMetadata, RefusesADeviceWithoutAWholeBlock) {
  const TestFile file(kBlockSize - 512);
  try {
    classify_metadata(file.open());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  }
}

TEST(Superblock, IsRead) {
  TestImage image;
  image.at<DiskSuperblock>(0).header.flags = kNeedsCheck;
  image.seal_superblock();
  const Metadata metadata = image.open();
  const Superblock& superblock = metadata.superblock();
  EXPECT_EQ(superblock.transaction_id, 77U);
  EXPECT_EQ(superblock.time, 3U);
  EXPECT_EQ(superblock.version, 2U);
  EXPECT_EQ(superblock.data_block_size, Sectors{128});
  EXPECT_EQ(superblock.metadata_blocks, image.blocks());
  EXPECT_EQ(superblock.data_blocks, TestImage::kDataBlocks);
  EXPECT_EQ(superblock.held_root, 0U);
  EXPECT_TRUE(superblock.needs_check);
  EXPECT_FALSE(TestImage().open().superblock().needs_check);
}

TEST(Superblock, TakesItsSizeFromTheSpaceMapSinceTheOtherFieldIsThatOfTheFormatting) {
  TestImage image;
  image.at<DiskSuperblock>(0).metadata_blocks_at_format = 1;
  image.seal_superblock();
  EXPECT_EQ(image.open().superblock().metadata_blocks, image.blocks());
}

TEST(Superblock, MayBeOnALargerDevice) {
  const TestImage image;
  TestFile file = image.write();
  file.truncate(2 * image.bytes().size());
  EXPECT_EQ(Metadata(file.open(), Root::kLive).superblock().metadata_blocks, image.blocks());
}

TEST(Superblock, IsRefusedOnASmallerDevice) {
  const TestImage image;
  for (std::uint64_t size = 0; size < image.bytes().size(); size += 512) {
    TestFile file = image.write();
    file.truncate(size);
    try {
      Metadata(file.open(), Root::kLive);
      ADD_FAILURE() << size;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << size;
    }
  }
}

TEST(Superblock, OfAnUnknownFormatIsUnsupported) {
  for (const std::uint32_t version : {0U, 3U}) {
    TestImage image;
    image.at<DiskSuperblock>(0).version = version;
    image.seal_superblock();
    EXPECT_EQ(failure_of(image).kind(), ErrorKind::kUnsupported) << version;
  }
  TestImage image;
  image.at<DiskSuperblock>(0).incompat_flags = 4;
  image.seal_superblock();
  EXPECT_EQ(failure_of(image).kind(), ErrorKind::kUnsupported);
}

TEST(Superblock, OfTheFirstVersionIsRead) {
  TestImage image;
  image.at<DiskSuperblock>(0).version = 1;
  image.seal_superblock();
  EXPECT_EQ(image.open().superblock().version, 1U);
}

TEST(Superblock, ThatIsDamagedIsRefusedWithTheReason) {
  struct Damage {
    const char* reason;
    void (*make)(DiskSuperblock&);
  };
  for (const Damage& damage : {
           Damage{"magic", [](DiskSuperblock& disk) { disk.magic = 1; }},
           Damage{"data block size is 0",
                  [](DiskSuperblock& disk) { disk.data_block_sectors = 0; }},
           Damage{"data block size is 129",
                  [](DiskSuperblock& disk) { disk.data_block_sectors = 129; }},
           Damage{"data block size is 4194304",
                  [](DiskSuperblock& disk) { disk.data_block_sectors = 1U << 22U; }},
           Damage{"data blocks",
                  [](DiskSuperblock& disk) { disk.data_space_map.blocks = kMaxDataBlocks + 1; }},
           Damage{"root of its mappings is block 0",
                  [](DiskSuperblock& disk) { disk.mapping_root = 0; }},
           Damage{"root of its mappings is block 1000",
                  [](DiskSuperblock& disk) { disk.mapping_root = 1000; }},
           Damage{"root of its device details is block 0",
                  [](DiskSuperblock& disk) { disk.details_root = 0; }},
       }) {
    TestImage image;
    damage.make(image.at<DiskSuperblock>(0));
    image.seal_superblock();
    const Error error = failure_of(image);
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << damage.reason;
    EXPECT_THAT(error.message(), HasSubstr("superblock"));
    EXPECT_THAT(error.message(), HasSubstr(damage.reason));
  }
}

TEST(Superblock, MustHaveTheRightChecksumAndBlockZero) {
  TestImage image;
  image.at<DiskSuperblock>(0).transaction_id = 78;
  EXPECT_THAT(failure_of(image).message(), HasSubstr("checksum"));

  image.at<DiskSuperblock>(0).header.own_number = 1;
  image.seal_checksum(0, kSuperblockChecksumXor);
  EXPECT_THAT(failure_of(image).message(), HasSubstr("it says that it is block 1"));

  // The checksum of a node is none of a superblock.
  image.seal(0, kNodeChecksumXor);
  EXPECT_THAT(failure_of(image).message(), HasSubstr("checksum"));
}

// --- Metadata snapshots --------------------------------------------------------------------------

// A pool with device 1, held, that then went on: device 2 came and the transaction id is another.
struct HeldImage : TestImage {
  HeldImage() {
    add_device(1, add_leaf({{0, mapping(5)}}));
    finish();
    held = hold();
    add_device(2, add_leaf({{0, mapping(6)}}));
    at<DiskSuperblock>(0).transaction_id = 78;
    at<DiskSuperblock>(0).header.flags = kNeedsCheck;
    finish();
  }

  std::uint64_t held = 0;
};

TEST(HeldRoot, ShowsThePoolAsItWasWhenItWasTaken) {
  const HeldImage image;
  Metadata held = image.open(Root::kHeld);
  EXPECT_EQ(held.devices().size(), 1U);
  EXPECT_EQ(held.superblock().transaction_id, 77U);

  Metadata live = image.open(Root::kLive);
  EXPECT_EQ(live.devices().size(), 2U);
  EXPECT_EQ(live.superblock().transaction_id, 78U);
}

TEST(HeldRoot, KnowsThePoolsSizesThoughTheKernelWipesTheSpaceMapsInTheCopy) {
  const HeldImage image;
  const Metadata metadata = image.open(Root::kHeld);
  const Superblock& superblock = metadata.superblock();
  EXPECT_EQ(superblock.data_blocks, TestImage::kDataBlocks);
  EXPECT_EQ(superblock.metadata_blocks, image.blocks());
  EXPECT_EQ(superblock.held_root, image.held);
  EXPECT_TRUE(superblock.needs_check);
}

TEST(HeldRoot, IsNotFoundIfNothingIsHeld) {
  const Error error = failure_of(TestImage(), Root::kHeld);
  EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
}

TEST(HeldRoot, MustBeASuperblockThatKnowsItsOwnPlace) {
  HeldImage image;
  image.at<DiskSuperblock>(image.held).header.own_number = 0;
  image.seal_checksum(image.held, kSuperblockChecksumXor);
  const Error misplaced = failure_of(image, Root::kHeld);
  EXPECT_EQ(misplaced.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(misplaced.message(), HasSubstr("metadata snapshot"));
  EXPECT_THAT(misplaced.message(), HasSubstr("it says that it is block 0"));

  image.seal(image.held, kSuperblockChecksumXor);
  image.at<DiskSuperblock>(image.held).time = 99;
  EXPECT_THAT(failure_of(image, Root::kHeld).message(), HasSubstr("checksum"));
}

TEST(HeldRoot, MustBeOfTheSamePool) {
  HeldImage image;
  image.at<DiskSuperblock>(image.held).data_block_sectors = 256;
  image.seal(image.held, kSuperblockChecksumXor);
  EXPECT_THAT(failure_of(image, Root::kHeld).message(), HasSubstr("data block size"));
}

TEST(HeldRoot, MustBeInTheMetadata) {
  HeldImage image;
  image.at<DiskSuperblock>(0).held_root = image.blocks();
  image.seal_superblock();
  EXPECT_EQ(failure_of(image, Root::kHeld).kind(), ErrorKind::kCorrupt);
}

TEST(HeldRoot, IsFoundThoughTheKernelIsJustWritingTheSuperblock) {
  const HeldImage image;
  TestFile file = image.write();
  file.write(64, as_bytes("half"));
  const std::jthread kernel([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    file.write(0, image.bytes().first(kBlockSize));
  });
  EXPECT_EQ(Metadata(file.open(), Root::kHeld).superblock().held_root, image.held);
}

TEST(HeldRoot, IsGivenUpIfTheSuperblockStaysDamaged) {
  HeldImage image;
  image.at<DiskBlockHeader>(0).checksum = 0;
  EXPECT_EQ(failure_of(image, Root::kHeld).kind(), ErrorKind::kCorrupt);
}

}  // namespace
}  // namespace convoy::thinmeta
