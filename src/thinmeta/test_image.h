// Thin pool metadata as a test wants them, node by node: shared subtrees, odd shapes and every kind
// of damage, which no tool makes. Besides the trees there is as much of the space maps as
// thin_delta(8) and thin_dump(8) look at.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "sys/block_device.h"
#include "sys/file.h"
#include "thinmeta/crc32c.h"
#include "thinmeta/disk_format.h"
#include "thinmeta/metadata.h"

namespace convoy::thinmeta {

enum class Place {
  kMemory,  // quick, but there is no O_DIRECT
  kDisk,    // where other programs find it too
};

// A file that is gone with the object.
class TestFile {
 public:
  explicit TestFile(std::uint64_t size, Place place = Place::kMemory) {
    if (place == Place::kMemory) {
      fd_ = UniqueFd(::memfd_create("thinmeta", MFD_CLOEXEC));
      path_ = fmt::format("/proc/self/fd/{}", fd_.get());
    } else {
      path_to_unlink_ = testing::TempDir() + "thinmeta-XXXXXX";
      fd_ = UniqueFd(::mkstemp(path_to_unlink_.data()));
      path_ = path_to_unlink_;
    }
    if (!fd_) throw system_error(errno, "can't make a file for a test");
    truncate(size);
  }
  TestFile(TestFile&& other) noexcept
      : fd_(std::move(other.fd_)),
        path_(std::move(other.path_)),
        path_to_unlink_(std::exchange(other.path_to_unlink_, {})) {}
  ~TestFile() {
    if (!path_to_unlink_.empty()) ::unlink(path_to_unlink_.c_str());
  }

  const std::string& path() const { return path_; }
  BlockDevice open() const { return BlockDevice::open(path_, Access::kReadOnly); }

  void write(std::uint64_t offset, std::span<const std::byte> data) {
    write_all_at(fd_.get(), data, offset);
  }
  void truncate(std::uint64_t size) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0)
      throw system_error(errno, "truncate");
  }
  std::vector<std::byte> read() const {
    std::vector<std::byte> content(std::filesystem::file_size(path_));
    read_exactly_at(fd_.get(), content, 0);
    return content;
  }

 private:
  UniqueFd fd_;
  std::string path_;
  std::string path_to_unlink_;
};

// The value of a mapping.
inline std::uint64_t mapping(std::uint64_t data_block, std::uint32_t time = 0) {
  return data_block << kMappingTimeBits | time;
}

class TestImage {
 public:
  using Entries = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

  static constexpr std::uint64_t kDataBlocks = 1U << 20U;

  TestImage() {
    allocate();  // the superblock
    auto& superblock = at<DiskSuperblock>(kSuperblockNumber);
    superblock.magic = kSuperblockMagic;
    superblock.version = kNewestVersion;
    superblock.time = 3;
    superblock.transaction_id = 77;
    superblock.data_block_sectors = 128;
    superblock.metadata_block_sectors = 8;
    superblock.data_space_map.blocks = kDataBlocks;
    const std::uint64_t index = allocate();
    bitmap_ = allocate();
    *reinterpret_cast<DiskBitmapEntry*>(&block(index)[sizeof(DiskBlockHeader)]) = {
        .block = bitmap_, .free = {}, .none_free_before = {}};
    seal(index, kBitmapIndexChecksumXor);
    seal(bitmap_, kBitmapChecksumXor);
    at<DiskSuperblock>(kSuperblockNumber).metadata_space_map.bitmap_root = index;
    finish();
  }

  std::uint64_t allocate() {
    bytes_.resize(bytes_.size() + kBlockSize);
    return bytes_.size() / kBlockSize - 1;
  }

  std::span<std::byte> block(std::uint64_t number) {
    return std::span(bytes_).subspan(number * kBlockSize, kBlockSize);
  }

  // The structure at the start of a block, to be changed. (All of them are made of bytes, so any
  // place is aligned.)
  template <typename Struct>
  Struct& at(std::uint64_t number) {
    return *reinterpret_cast<Struct*>(block(number).data());
  }

  // A node's key or value, likewise. Values of 8 bytes only.
  Le64& key(std::uint64_t number, std::size_t index) {
    return *reinterpret_cast<Le64*>(&block(number)[sizeof(DiskNodeHeader) + index * kKeySize]);
  }
  Le64& value(std::uint64_t number, std::size_t index) {
    return key(number, at<DiskNodeHeader>(number).max_entries + index);
  }

  // Gives a block its own number and the checksum of its kind.
  void seal(std::uint64_t number, std::uint32_t checksum_xor = kNodeChecksumXor) {
    at<DiskBlockHeader>(number).own_number = number;
    seal_checksum(number, checksum_xor);
  }
  void seal_checksum(std::uint64_t number, std::uint32_t checksum_xor = kNodeChecksumXor) {
    at<DiskBlockHeader>(number).checksum =
        crc32c(block(number).subspan(sizeof(Le32))) ^ checksum_xor;
  }

  // Each gives the new node's block.
  std::uint64_t add_leaf(const Entries& entries) { return add_node<Le64>(kLeafNode, entries); }
  std::uint64_t add_inner(const Entries& entries) { return add_node<Le64>(kInnerNode, entries); }

  template <typename Value, typename Pairs>
  std::uint64_t add_node(std::uint32_t flags, const Pairs& entries) {
    const std::uint64_t number = allocate();
    auto& header = at<DiskNodeHeader>(number);
    header.header.flags = flags;
    header.entries = static_cast<std::uint32_t>(entries.size());
    header.max_entries = max_entries_of(sizeof(Value));
    header.value_size = sizeof(Value);
    EXPECT_LE(entries.size(), header.max_entries);
    std::byte* const keys = block(number).data() + sizeof header;
    std::byte* const values = keys + header.max_entries * kKeySize;
    std::size_t i = 0;
    for (const auto& [key, value] : entries) {
      const Le64 disk_key = key;
      const Value disk_value = value;
      std::memcpy(keys + i * kKeySize, &disk_key, kKeySize);
      std::memcpy(values + i * sizeof(Value), &disk_value, sizeof(Value));
      ++i;
    }
    seal(number);
    return number;
  }

  // `root` is that of the device's mappings.
  void add_device(std::uint32_t thin_id, std::uint64_t root, const DeviceDetails& details = {}) {
    roots_[thin_id] = root;
    details_[thin_id] = {details.mapped_blocks, details.transaction_id, details.creation_time,
                         details.snapshotted_time};
  }

  // Writes new device trees, of one leaf each, and the superblock. To be called after the last
  // change of the good image.
  void finish() {
    set_roots(add_leaf({roots_.begin(), roots_.end()}),
              add_node<DiskDeviceDetails>(kLeafNode, details_));
  }
  void set_roots(std::uint64_t mapping_root, std::uint64_t details_root) {
    auto& superblock = at<DiskSuperblock>(kSuperblockNumber);
    superblock.mapping_root = mapping_root;
    superblock.details_root = details_root;
    seal_superblock();
  }
  void seal_superblock() {
    at<DiskSuperblock>(kSuperblockNumber).metadata_space_map.blocks = bytes_.size() / kBlockSize;
    seal(kSuperblockNumber, kSuperblockChecksumXor);
  }

  // In the metadata's space map, in which nothing else is counted: how often one of the first
  // blocks is referred to; 3 stands for more.
  void count(std::uint64_t number, unsigned references) {
    const unsigned pair = (references & 1U) << 1U | references >> 1U;
    auto& bits = block(bitmap_)[sizeof(DiskBlockHeader) + number / 4];
    bits &= ~(std::byte{3} << (number % 4 * 2));
    bits |= std::byte(pair << (number % 4 * 2));
    seal(bitmap_, kBitmapChecksumXor);
  }
  std::uint64_t bitmap() const { return bitmap_; }

  // What the kernel does for reserve_metadata_snap: a copy of the superblock, written as a block of
  // its own, and counted.
  std::uint64_t hold() {
    const std::uint64_t number = allocate();
    auto& copy = at<DiskSuperblock>(number);
    copy = at<DiskSuperblock>(kSuperblockNumber);
    copy.data_space_map = {};
    copy.metadata_space_map = {};
    seal(number, kSuperblockChecksumXor);
    at<DiskSuperblock>(kSuperblockNumber).held_root = number;
    seal_superblock();
    count(number, 1);
    return number;
  }

  std::uint64_t blocks() const { return bytes_.size() / kBlockSize; }
  std::span<const std::byte> bytes() const { return bytes_; }

  TestFile write(Place place = Place::kMemory) const {
    TestFile file(bytes_.size(), place);
    file.write(0, bytes_);
    return file;
  }

  // The image, read by the code under test.
  Metadata open(Root root = Root::kLive) const { return {write().open(), root}; }

 private:
  std::vector<std::byte> bytes_;
  std::uint64_t bitmap_ = 0;
  std::map<std::uint32_t, std::uint64_t> roots_;
  std::map<std::uint32_t, DiskDeviceDetails> details_;
};

// All that a walk gives.
inline std::vector<DeltaRange> delta_of(Metadata& metadata, std::optional<std::uint32_t> first,
                                        std::uint32_t second) {
  std::vector<DeltaRange> ranges;
  metadata.delta(first, second, [&](const DeltaRange& range) { ranges.push_back(range); });
  return ranges;
}

}  // namespace convoy::thinmeta

namespace convoy {

// For the messages of failed tests.
// NOLINTNEXTLINE(readability-identifier-naming): gtest's name
inline void PrintTo(const DeltaRange& range, std::ostream* out) {
  const std::map<Change, std::string> names = {
      {Change::kAdded, "added"}, {Change::kRemoved, "removed"}, {Change::kDifferent, "different"}};
  *out << names.at(range.change) << " [" << range.begin.count << ", " << range.end.count << ")";
}

}  // namespace convoy
