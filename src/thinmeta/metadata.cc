#include "thinmeta/metadata.h"

#include <chrono>
#include <thread>

#include "base/error.h"
#include "thinmeta/cursor.h"
#include "thinmeta/disk_format.h"
#include "thinmeta/lookup.h"
#include "thinmeta/trees.h"

namespace convoy {

using thinmeta::BlockReader;
using thinmeta::details_tree;
using thinmeta::DiskDeviceDetails;
using thinmeta::DiskMapping;
using thinmeta::roots_tree;
using thinmeta::Tree;
using thinmeta::TreeCursor;

namespace {

// The kernel may be writing the superblock of a live pool this very moment, and a loop device lets
// us see half of that. Commits come about once a second, so a block that is wrong for this long is
// damaged.
constexpr int kSuperblockAttempts = 10;
constexpr std::chrono::milliseconds kSuperblockPause{20};

Superblock read_changing_superblock(BlockReader& reader) {
  for (int attempt = 1;; ++attempt) {
    try {
      return thinmeta::read_superblock(reader);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt || attempt == kSuperblockAttempts) throw;
    }
    std::this_thread::sleep_for(kSuperblockPause);
  }
}

Superblock read_superblock_of(BlockReader& reader, Root root) {
  if (root == Root::kLive) return thinmeta::read_superblock(reader);
  return thinmeta::read_held_superblock(reader, read_changing_superblock(reader));
}

DeviceDetails from_disk(const DiskDeviceDetails& disk) {
  return {disk.mapped_blocks, disk.transaction_id, disk.creation_time, disk.snapshotted_time};
}

}  // namespace

Metadata::Metadata(BlockDevice device, Root root)
    : reader_(std::move(device)), superblock_(read_superblock_of(reader_, root)) {}

std::optional<DeviceDetails> Metadata::find_device(std::uint32_t thin_id) {
  const auto details =
      thinmeta::find_value<DiskDeviceDetails>(reader_, details_tree(superblock_), thin_id);
  return details ? std::optional(from_disk(*details)) : std::nullopt;
}

std::vector<std::pair<std::uint32_t, DeviceDetails>> Metadata::devices() {
  std::vector<std::pair<std::uint32_t, DeviceDetails>> devices;
  const Tree tree = details_tree(superblock_);
  for (TreeCursor cursor(reader_, tree); !cursor.at_end();) {
    if (cursor.level() > 0) {
      cursor.open_with_siblings();
      continue;
    }
    devices.emplace_back(static_cast<std::uint32_t>(cursor.key()),
                         from_disk(cursor.value<DiskDeviceDetails>()));
    cursor.skip();
  }
  return devices;
}

Tree Metadata::mapping_tree(std::uint32_t thin_id) {
  const auto root =
      thinmeta::find_value<Le64>(reader_, roots_tree(superblock_, reader_.end()), thin_id);
  if (!root && find_device(thin_id))
    throw Error(ErrorKind::kCorrupt, "thin device {} has details, but no mappings", thin_id);
  if (!root) throw Error(ErrorKind::kNotFound, "there is no thin device {}", thin_id);
  return thinmeta::mapping_tree(superblock_, thin_id, *root);
}

void Metadata::compare(std::optional<std::uint32_t> first, std::uint32_t second, Same same,
                       const std::function<void(const BlockPair&)>& visit) {
  std::optional<Tree> first_tree;
  if (first) first_tree = mapping_tree(*first);
  thinmeta::walk_pairs(reader_, first_tree, mapping_tree(second), same, visit);
}

void Metadata::mappings(std::uint32_t thin_id, const std::function<void(const Mapping&)>& visit) {
  const Tree tree = mapping_tree(thin_id);
  for (TreeCursor cursor(reader_, tree); !cursor.at_end();) {
    if (cursor.level() > 0) {
      cursor.open_with_siblings();
      continue;
    }
    const std::uint64_t value = cursor.value<DiskMapping>();
    visit({{cursor.key()},
           value >> thinmeta::kMappingTimeBits,
           static_cast<std::uint32_t>(value & ((1U << thinmeta::kMappingTimeBits) - 1))});
    cursor.skip();
  }
}

void Metadata::check(CheckDepth depth, const CheckObserver& observer) {
  thinmeta::check_metadata(reader_, superblock_, depth, observer);
}

void Metadata::delta(std::optional<std::uint32_t> first, std::uint32_t second,
                     const std::function<void(const DeltaRange&)>& visit) {
  std::optional<Tree> first_tree;
  if (first) first_tree = mapping_tree(*first);
  thinmeta::walk_delta(reader_, first_tree, mapping_tree(second), visit);
}

}  // namespace convoy
