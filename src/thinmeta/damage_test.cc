// Metadata that are not as the kernel makes them: refused with a message that says where, whatever
// is wrong.
#include <algorithm>
#include <array>
#include <random>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "thinmeta/test_image.h"

namespace convoy::thinmeta {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Reads all that there is: the details and mappings of all devices.
void read_everything(Metadata& metadata) {
  for (const auto& [thin_id, details] : metadata.devices()) {
    metadata.find_device(thin_id);
    delta_of(metadata, std::nullopt, thin_id);
  }
}

Error failure_of(const TestImage& image) {
  try {
    Metadata metadata = image.open();
    read_everything(metadata);
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::kInternal, "it was read"};
}

// A good pool: device 5's mappings are a tree of two levels below the root.
//
//   root        0             300
//   inner       0     100     300       400
//   leaves      0..9  100..   300, 301  400, 401
class Damage : public testing::Test {
 protected:
  Damage() {
    leaves_[0] = image_.add_leaf({{0, mapping(1)}, {3, mapping(2)}, {9, mapping(3)}});
    leaves_[1] = image_.add_leaf({{100, mapping(4)}, {110, mapping(5)}});
    leaves_[2] = image_.add_leaf({{300, mapping(6)}, {301, mapping(7)}});
    leaves_[3] = image_.add_leaf({{400, mapping(8)}, {401, mapping(9)}});
    inner_[0] = image_.add_inner({{0, leaves_[0]}, {100, leaves_[1]}});
    inner_[1] = image_.add_inner({{300, leaves_[2]}, {400, leaves_[3]}});
    root_ = image_.add_inner({{0, inner_[0]}, {300, inner_[1]}});
    image_.add_device(5, root_, {.mapped_blocks = 9});
    image_.finish();
  }

  DiskNodeHeader& header(std::uint64_t block) { return image_.at<DiskNodeHeader>(block); }

  // The image is damaged, and the message names tree, block and keys, and gives this reason.
  void expect_damage(std::uint64_t block, const std::string& keys, const std::string& reason) {
    const Error error = failure_of(image_);
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.message(), AllOf(HasSubstr("mappings of thin device 5"),
                                       HasSubstr(fmt::format("block {} ", block)),
                                       HasSubstr("keys " + keys), HasSubstr(reason)));
  }

  TestImage image_;
  std::array<std::uint64_t, 4> leaves_ = {};
  std::array<std::uint64_t, 2> inner_ = {};
  std::uint64_t root_ = 0;
};

TEST_F(Damage, IsNotFoundInGoodMetadata) {
  EXPECT_EQ(failure_of(image_).message(), "it was read");
}

TEST_F(Damage, OfAChecksum) {
  header(leaves_[1]).header.checksum = 1;
  expect_damage(leaves_[1], "100 to 299", "checksum");
}

TEST_F(Damage, OfAnUnusedByteIsDamageAsWell) {
  image_.block(leaves_[1])[kBlockSize - 1] = std::byte{1};
  expect_damage(leaves_[1], "100 to 299", "checksum");
}

TEST_F(Damage, AsAnotherKindOfBlock) {
  image_.seal(leaves_[1], kSuperblockChecksumXor);
  expect_damage(leaves_[1], "100 to 299", "checksum");
}

TEST_F(Damage, AsABlockInAnothersPlace) {
  std::ranges::copy(image_.block(leaves_[0]), image_.block(leaves_[1]).begin());
  expect_damage(leaves_[1], "100 to 299", fmt::format("it says that it is block {}", leaves_[0]));
}

TEST_F(Damage, OfFlags) {
  for (const std::uint32_t flags : {0U, 3U, 4U, 6U, ~0U}) {
    header(inner_[1]).header.flags = flags;
    image_.seal(inner_[1]);
    expect_damage(inner_[1], "300 to", "flags");
  }
}

TEST_F(Damage, OfTheNumberOfEntries) {
  for (const std::uint32_t entries : {253U, ~0U}) {
    header(leaves_[0]).entries = entries;
    image_.seal(leaves_[0]);
    expect_damage(leaves_[0], "0 to 99", fmt::format("it has {} entries", entries));
  }
}

TEST_F(Damage, OfTheRoomForEntries) {
  for (const std::uint32_t room : {1U, 251U, 255U, ~0U}) {
    header(leaves_[0]).max_entries = room;
    image_.seal(leaves_[0]);
    expect_damage(leaves_[0], "0 to 99", fmt::format("room for {} entries", room));
  }
  // Room for fewer than the kernel makes is odd, but leads nowhere wrong; for fewer than there are,
  // it does.
  header(leaves_[0]).max_entries = 0;
  image_.seal(leaves_[0]);
  expect_damage(leaves_[0], "0 to 99", "it has 3 entries");
}

TEST_F(Damage, OfTheSizeOfValues) {
  for (const std::uint64_t block : {leaves_[0], inner_[0]}) {
    for (const std::uint32_t size : {0U, 7U, 24U, ~0U}) {
      image_.at<DiskNodeHeader>(block).value_size = size;
      image_.seal(block);
      expect_damage(block, "0 to", fmt::format("its values have {} bytes", size));
    }
    image_.at<DiskNodeHeader>(block).value_size = 8;
    image_.seal(block);
  }
}

TEST_F(Damage, OfTheOrderOfKeys) {
  for (const std::uint64_t key : {0U, 3U}) {
    image_.key(leaves_[0], 2) = key;
    image_.seal(leaves_[0]);
    expect_damage(leaves_[0], "0 to 99", fmt::format("key {} comes after key 3", key));
  }
}

TEST_F(Damage, OfKeysThatTheParentDoesNotPromise) {
  image_.key(leaves_[1], 0) = 99;
  image_.seal(leaves_[1]);
  expect_damage(leaves_[1], "100 to 299", "it has key 99");
  image_.key(leaves_[1], 0) = 100;
  image_.key(leaves_[1], 1) = 300;
  image_.seal(leaves_[1]);
  expect_damage(leaves_[1], "100 to 299", "it has key 300");
}

TEST_F(Damage, OfABlockBeyondWhatADeviceCanHave) {
  const std::uint64_t end = ~std::uint64_t{0} / (64 * kKiB);
  image_.key(leaves_[3], 1) = end;
  image_.seal(leaves_[3]);
  expect_damage(leaves_[3], "400 to", fmt::format("it has key {}", end));
}

TEST_F(Damage, OfAChildBeyondTheMetadata) {
  for (const std::uint64_t child : {image_.blocks(), ~std::uint64_t{0}}) {
    image_.value(inner_[0], 1) = child;
    image_.seal(inner_[0]);
    expect_damage(inner_[0], "0 to 299", fmt::format("the value of key 100 is {:#x}", child));
  }
  // The device may be larger than the metadata on it, and hold anything there.
  image_.value(inner_[0], 1) = image_.blocks();
  image_.seal(inner_[0]);
  image_.add_leaf({});
  expect_damage(inner_[0], "0 to 299", "the value of key 100");
}

TEST_F(Damage, OfADataBlockBeyondTheDataDevice) {
  image_.value(leaves_[0], 1) = mapping(TestImage::kDataBlocks, 0);
  image_.seal(leaves_[0]);
  expect_damage(leaves_[0], "0 to 99", "the value of key 3");
}

TEST_F(Damage, OfAnInnerNodeWithoutChildren) {
  header(inner_[1]).entries = 0;
  image_.seal(inner_[1]);
  expect_damage(inner_[1], "300 to", "without children");
}

TEST_F(Damage, AsALeafThatIsTooHigh) {
  image_.value(root_, 1) = leaves_[2];
  image_.seal(root_);
  expect_damage(leaves_[2], "300 to", "a leaf above the level of the leaves");
}

TEST_F(Damage, AsAnInnerNodeThatIsTooLow) {
  image_.value(inner_[1], 0) = image_.add_inner({{300, leaves_[2]}});
  image_.seal(inner_[1]);
  image_.seal_superblock();
  expect_damage(image_.value(inner_[1], 0), "300 to 399",
                "an inner node on the level of the leaves");
}

// In one tree the block is at its level, in the other it isn't: equal blocks are not enough to pass
// over both.
TEST_F(Damage, AsASharedNodeOnDifferentLevels) {
  image_.value(root_, 1) = leaves_[2];
  image_.seal(root_);
  image_.add_device(6, image_.add_inner({{0, leaves_[0]}, {300, leaves_[2]}}));
  image_.finish();
  Metadata metadata = image_.open();
  EXPECT_THROW(delta_of(metadata, 6, 5), Error);
  EXPECT_THROW(delta_of(metadata, 5, 6), Error);
}

TEST_F(Damage, AsACircleEndsTheWalk) {
  // Only a node with one child can be its own child and keep what it promises.
  const std::uint64_t circle = image_.allocate();
  const std::uint64_t node = image_.add_inner({{0, circle}});
  std::ranges::copy(image_.block(node), image_.block(circle).begin());
  image_.seal(circle);
  image_.add_device(5, circle);
  image_.finish();
  EXPECT_THAT(failure_of(image_).message(),
              AllOf(HasSubstr("mappings of thin device 5"), HasSubstr("no leaf")));
  Metadata metadata = image_.open();
  EXPECT_THROW(delta_of(metadata, std::nullopt, 5), Error);
  EXPECT_LT(metadata.blocks_read(), 20U);
  std::string found;
  metadata.check(CheckDepth::kMappings,
                 {[](const char*) {}, [&](const Finding& finding) { found += finding.sentence; }});
  EXPECT_THAT(found, AllOf(HasSubstr("mappings of thin device 5"), HasSubstr("below itself")));

  // In a tree that is looked up in, and elsewhere than on the way to the first leaf.
  image_.set_roots(circle, image_.at<DiskSuperblock>(0).details_root);
  EXPECT_THAT(failure_of(image_).message(),
              AllOf(HasSubstr("roots of the mappings"), HasSubstr("for keys 0 to 16777216"),
                    HasSubstr("where there should be leaves")));
}

TEST_F(Damage, AsACircleToTheRightEndsTheWalk) {
  header(inner_[1]).entries = 1;
  image_.value(inner_[1], 0) = inner_[1];
  image_.seal(inner_[1]);
  expect_damage(inner_[1], "300 to", "an inner node on the level of the leaves");
}

TEST_F(Damage, OfAThinIdBeyond24Bits) {
  image_.add_device(1U << 24U, leaves_[0]);
  image_.finish();
  EXPECT_THAT(failure_of(image_).message(),
              AllOf(HasSubstr("details of thin devices"), HasSubstr("it has key 16777216")));
  Metadata metadata = image_.open();
  EXPECT_THROW(delta_of(metadata, std::nullopt, 5), Error);
}

TEST_F(Damage, OfTheRootOfADevicesMappings) {
  image_.add_device(5, image_.blocks() + 100);
  image_.finish();
  EXPECT_THAT(failure_of(image_).message(),
              AllOf(HasSubstr("roots of the mappings"), HasSubstr("the value of key 5")));
  image_.add_device(5, 0);
  image_.finish();
  EXPECT_THAT(failure_of(image_).message(),
              AllOf(HasSubstr("mappings of thin device 5"), HasSubstr("checksum")));
}

TEST_F(Damage, AsADeviceWithDetailsButWithoutMappings) {
  const std::uint64_t details_root = image_.at<DiskSuperblock>(0).details_root;
  image_.set_roots(image_.add_leaf({}), details_root);
  const Error error = failure_of(image_);
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr("thin device 5 has details, but no mappings"));
}

TEST_F(Damage, DoesNotMakeTheRestUnreadable) {
  image_.add_device(6, leaves_[0]);
  image_.finish();
  header(leaves_[1]).header.checksum = 1;
  Metadata metadata = image_.open();
  EXPECT_THROW(delta_of(metadata, std::nullopt, 5), Error);
  EXPECT_EQ(delta_of(metadata, std::nullopt, 6).size(), 3U);
  // What comes before the damage has been given by then, which is why a walk's result counts only
  // when it ends well.
  std::vector<DeltaRange> ranges;
  EXPECT_THROW(
      metadata.delta(std::nullopt, 5, [&](const DeltaRange& range) { ranges.push_back(range); }),
      Error);
  EXPECT_EQ(ranges.size(), 2U);
}

TEST_F(Damage, ByALossOfTheFilesEndIsNoticedAtOnce) {
  TestFile file = image_.write();
  file.truncate(image_.bytes().size() - kBlockSize);
  EXPECT_THROW(Metadata(file.open(), Root::kLive), Error);
}

TEST_F(Damage, ByALossOfTheFilesEndWhileReadingIsAnError) {
  for (std::uint64_t size = image_.bytes().size(); size > 0; size -= 512) {
    TestFile file = image_.write();
    Metadata metadata(file.open(), Root::kLive);
    file.truncate(size - 512);
    EXPECT_THROW(read_everything(metadata), Error) << size;
  }
}

// Every byte that is in use, changed. With the old checksum nothing gets through.
TEST_F(Damage, OfAnyByteIsAnError) {
  std::mt19937 random(1);
  TestFile file = image_.write();
  for (const std::uint64_t block :
       {std::uint64_t{0}, leaves_[1], inner_[0], root_, image_.blocks() - 1}) {
    for (std::size_t i = 0; i < kBlockSize; i += i < 400 ? 1 : 13) {
      const std::uint64_t offset = block * kBlockSize + i;
      const std::byte good = image_.bytes()[offset];
      const std::byte bad = good ^ std::byte{static_cast<unsigned char>(1U << (random() % 8))};
      file.write(offset, std::span(&bad, 1));
      try {
        Metadata metadata(file.open(), Root::kLive);
        read_everything(metadata);
        ADD_FAILURE() << "byte " << i << " of block " << block;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << error.message();
      }
      file.write(offset, std::span(&good, 1));
    }
  }
}

// Likewise, but with the checksum that belongs to the damage, as somebody with bad intentions would
// write it: not every change can be noticed then, but each is read to an end or refused.
TEST_F(Damage, OfAnyByteWithAGoodChecksumNeitherCrashesNorHangs) {
  std::mt19937 random(2);
  std::size_t refused = 0;
  for (int round = 0; round < 2500; ++round) {
    TestImage image = image_;
    const std::uint64_t block = random() % image.blocks();
    const std::size_t used = random() % 2 == 0 ? sizeof(DiskNodeHeader) + 3 * kKeySize : kBlockSize;
    const std::size_t offset = sizeof(Le32) + random() % (used - sizeof(Le32));
    for (std::size_t i = 0; i < 1 + random() % 2; ++i) {
      image.block(block)[std::min(offset + i, kBlockSize - 1)] = static_cast<std::byte>(random());
    }
    image.seal_checksum(block, block == 0 ? kSuperblockChecksumXor : kNodeChecksumXor);
    try {
      Metadata metadata = image.open();
      read_everything(metadata);
    } catch (const Error& error) {
      EXPECT_TRUE(error.kind() == ErrorKind::kCorrupt || error.kind() == ErrorKind::kUnsupported)
          << error.message();
      ++refused;
    }
  }
  EXPECT_GT(refused, 400U);
}

}  // namespace
}  // namespace convoy::thinmeta
