// The bytes of frames, packs and nodes: what is written is read, and nothing else is, however it is
// made up.
#include <gtest/gtest.h>

#include "backup/backup_testing.h"
#include "backup/frame.h"
#include "backup/pack.h"
#include "backup/tree_node.h"

namespace convoy {
namespace {

Bytes frame_of(const Bytes& plain) {
  FrameEncoder encoder;
  Bytes frame;
  const std::uint32_t length = encoder.append(plain, frame);
  EXPECT_EQ(length, frame.size());
  return frame;
}

Bytes decoded(const Bytes& frame, std::size_t max_length = kMaxChunkSize) {
  FrameDecoder decoder;
  const auto plain = decoder.decode(frame, max_length);
  return {plain.begin(), plain.end()};
}

template <typename Struct, typename Change>
Bytes changed(Bytes bytes, std::size_t offset, Change&& change) {
  Struct value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  change(value);
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  return bytes;
}

ErrorKind kind_of_decoding(const Bytes& frame) {
  return error_of([&] { decoded(frame); }).kind();
}

TEST(Frame, GivesBackWhatWasPutIn) {
  for (const Bytes& plain : {Bytes(), Bytes(1), Bytes(kMaxChunkSize), noise(1, kMaxChunkSize)}) {
    EXPECT_EQ(decoded(frame_of(plain)), plain);
  }
}

TEST(Frame, IsCompressedOnlyIfThatMakesItShorter) {
  EXPECT_LT(frame_of(Bytes(kMaxChunkSize)).size(), 100U);
  EXPECT_EQ(frame_of(noise(1, kMaxChunkSize)).size(), kMaxChunkSize + sizeof(FrameHeader));
}

TEST(Frame, IsRefusedCutOffAnywhere) {
  const Bytes frame = frame_of(Bytes(100, std::byte{'a'}));
  for (std::size_t size = 0; size < frame.size(); ++size) {
    EXPECT_EQ(kind_of_decoding(Bytes(frame.begin(), frame.begin() + static_cast<long>(size))),
              ErrorKind::kCorrupt);
  }
}

TEST(Frame, IsRefusedWithAnyBitOfItsHeaderFlipped) {
  for (const Bytes& plain : {Bytes(100, std::byte{'a'}), noise(1, 100)}) {
    const Bytes frame = frame_of(plain);
    for (std::size_t bit = 0; bit < sizeof(FrameHeader) * 8; ++bit) {
      Bytes flipped = frame;
      flipped[bit / 8] ^= std::byte{1} << (bit % 8);
      EXPECT_EQ(kind_of_decoding(flipped), ErrorKind::kCorrupt) << bit;
    }
  }
}

TEST(Frame, TakesNoMoreMemoryThanTheCallerAllows) {
  const Bytes bomb = changed<FrameHeader>(frame_of(Bytes(100)), 0,
                                          [](auto& header) { header.plain_length = ~0U; });
  EXPECT_EQ(kind_of_decoding(bomb), ErrorKind::kCorrupt);
  EXPECT_EQ(error_of([&] { decoded(frame_of(Bytes(101)), 100); }).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(decoded(frame_of(Bytes(100)), 100), Bytes(100));
}

class PackFormat : public testing::Test {
 protected:
  PackFormat() {
    for (unsigned i = 0; i < 3; ++i) {
      const Bytes plain = noise(i, 1000);
      const auto offset = static_cast<std::uint32_t>(pack_.size());
      slots_.push_back(
          {.offset = offset, .length = encoder_.append(plain, pack_), .digest = sha256(plain)});
    }
    frames_ = pack_;
    append_footer(slots_, encoder_, pack_);
  }

  static std::vector<PackSlot> read_slots(const Bytes& pack) {
    const std::span all(pack);
    const PackTrailer trailer =
        parse_trailer(all.last(std::min(sizeof(PackTrailer), all.size())), pack.size());
    FrameDecoder decoder;
    return parse_footer(all.subspan(trailer.footer_offset), trailer, decoder);
  }

  // A pack with a correct checksum, of whatever slots.
  Bytes with_slots(std::vector<PackSlot> slots) {
    Bytes pack = frames_;
    append_footer(slots, encoder_, pack);
    return pack;
  }

  FrameEncoder encoder_;
  std::vector<PackSlot> slots_;
  Bytes frames_;
  Bytes pack_;
};

TEST_F(PackFormat, ListsItsSlots) {
  const auto slots = read_slots(pack_);
  ASSERT_EQ(slots.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(std::memcmp(&slots[i], &slots_[i], sizeof(PackSlot)), 0);
  }
}

TEST_F(PackFormat, IsRefusedWithAnyBitOfItsEndFlipped) {
  for (std::size_t byte = frames_.size(); byte < pack_.size(); ++byte) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      Bytes flipped = pack_;
      flipped[byte] ^= std::byte{1} << bit;
      EXPECT_EQ(error_of([&] { read_slots(flipped); }).kind(), ErrorKind::kCorrupt) << byte;
    }
  }
}

TEST_F(PackFormat, IsRefusedCutOffAnywhere) {
  for (std::size_t size = 0; size < pack_.size(); size += 7) {
    const Bytes cut(pack_.begin(), pack_.begin() + static_cast<long>(size));
    EXPECT_EQ(error_of([&] { read_slots(cut); }).kind(), ErrorKind::kCorrupt) << size;
  }
}

TEST_F(PackFormat, IsRefusedWithASlotOutsideOfItsFrames) {
  const auto end = static_cast<std::uint32_t>(frames_.size());
  for (const auto& [offset, length] : std::vector<std::pair<std::uint32_t, std::uint32_t>>{
           {end, 41}, {end - 40, 41}, {~0U, 41}, {~0U, ~0U}, {0, 39}, {0, end + 1}}) {
    std::vector<PackSlot> slots = slots_;
    slots[1].offset = offset;
    slots[1].length = length;
    EXPECT_EQ(error_of([&] { read_slots(with_slots(slots)); }).kind(), ErrorKind::kCorrupt);
  }
  std::vector<PackSlot> dropped = slots_;
  dropped[1] = {};
  EXPECT_EQ(read_slots(with_slots(dropped)).size(), 3U);
}

TEST_F(PackFormat, IsRefusedWithAFieldOfALaterVersion) {
  constexpr std::size_t kUnsummed = 40;
  Bytes later = changed<PackTrailer>(pack_, pack_.size() - sizeof(PackTrailer),
                                     [](auto& trailer) { trailer.reserved[0] = 1; });
  const auto checksum =
      sha256(std::span(later).subspan(frames_.size(), later.size() - frames_.size() - kUnsummed));
  std::memcpy(later.data() + later.size() - kUnsummed, checksum.data(), checksum.size());
  EXPECT_EQ(error_of([&] { read_slots(later); }).kind(), ErrorKind::kCorrupt);
}

TreeNode node_with(const std::vector<std::size_t>& places, PackKind kind, unsigned packs) {
  TreeNode node;
  const Uuid backup = Uuid::generate();
  for (const std::size_t place : places) {
    const auto number = static_cast<std::uint32_t>(place % packs);
    node.entries[place] = {{kind, backup, number},
                           static_cast<std::uint32_t>(place * 1000),
                           sha256(noise(static_cast<unsigned>(place), 10))};
  }
  return node;
}

std::vector<std::size_t> every_place() {
  std::vector<std::size_t> places(kTreeFanout);
  for (std::size_t i = 0; i < kTreeFanout; ++i) places[i] = i;
  return places;
}

TEST(Node, GivesBackWhatWasPutIn) {
  for (const std::uint32_t level : {0U, 1U, 5U}) {
    const PackKind kind = level == 0 ? PackKind::kData : PackKind::kTree;
    for (const auto& places : {std::vector<std::size_t>{0}, {127}, {3, 64, 65}, every_place()}) {
      for (const unsigned packs : {1U, 2U, 128U}) {
        const TreeNode node = node_with(places, kind, packs);
        EXPECT_EQ(decode_node(encode_node(node, level), level).entries, node.entries);
      }
    }
  }
}

TEST(Node, NamesEachPackOnceAndHasItsLargestSizeWithAllDifferent) {
  const auto size = [](unsigned packs) {
    return encode_node(node_with(every_place(), PackKind::kData, packs), 0).size();
  };
  EXPECT_EQ(size(1), 4U + 20 + 128 * 38);
  EXPECT_EQ(size(128), kMaxNodeSize);
}

TEST(Node, IsRefusedCutOffOrTooLongOrOfAnotherLevel) {
  Bytes bytes = encode_node(node_with({1, 2, 3}, PackKind::kTree, 2), 1);
  const auto refused = [](const Bytes& node, std::uint32_t level) {
    return error_of([&] { decode_node(node, level); }).kind() == ErrorKind::kCorrupt;
  };
  EXPECT_TRUE(refused(bytes, 0));
  EXPECT_TRUE(refused(bytes, 2));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_TRUE(refused(Bytes(bytes.begin(), bytes.begin() + static_cast<long>(size)), 1));
  }
  bytes.push_back(std::byte{0});
  EXPECT_TRUE(refused(bytes, 1));
}

TEST(Node, IsRefusedWithEntriesThatMeanNothing) {
  const Bytes bytes = encode_node(node_with({1, 2, 3}, PackKind::kData, 2), 0);
  constexpr std::size_t kPacks = 4;
  constexpr std::size_t kEntries = kPacks + 2 * 20;
  const auto refused = [&](std::size_t offset, int value) {
    Bytes spoilt = bytes;
    spoilt[offset] = static_cast<std::byte>(value);
    return error_of([&] { decode_node(spoilt, 0); }).kind() == ErrorKind::kCorrupt;
  };
  EXPECT_TRUE(refused(1, 0)) << "no packs";
  EXPECT_TRUE(refused(1, 255)) << "more packs than entries";
  EXPECT_TRUE(refused(2, 0)) << "no entries";
  EXPECT_TRUE(refused(2, 129)) << "too many entries";
  EXPECT_TRUE(refused(3, 1)) << "reserved";
  EXPECT_TRUE(refused(kEntries, 2)) << "the same place twice";
  EXPECT_TRUE(refused(kEntries + 2 * 38, 128)) << "no such place";
  EXPECT_TRUE(refused(kEntries + 1, 2)) << "no such pack";
  EXPECT_TRUE(refused(kEntries + 5, 255)) << "no such slot";
  EXPECT_FALSE(refused(kEntries, 0));
}

TEST(TreeShape, HasTheLeastHeightThatSpansTheVolume) {
  EXPECT_EQ(TreeShape(512, 65536).height(), 1U);
  EXPECT_EQ(TreeShape(128 * 65536, 65536).height(), 1U);
  EXPECT_EQ(TreeShape(128 * 65536 + 512, 65536).height(), 2U);
  EXPECT_EQ(TreeShape(kMaxVolumeSize, 4096).height(), 6U);
  EXPECT_LE(TreeShape(kMaxVolumeSize, kMinChunkSize).height(), kMaxTreeHeight);
  EXPECT_EQ(TreeShape(65536 + 512, 65536).chunk_count(), 2U);
  EXPECT_EQ(TreeShape(65536 + 512, 65536).bytes_of(1, 2), (ByteRange{65536, 66048}));
}

}  // namespace
}  // namespace convoy
