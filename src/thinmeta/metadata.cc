#include "thinmeta/metadata.h"

#include <chrono>
#include <limits>
#include <thread>

#include <fmt/format.h>

#include "base/error.h"
#include "base/limits.h"
#include "thinmeta/cursor.h"
#include "thinmeta/disk_format.h"
#include "thinmeta/lookup.h"

namespace convoy {

using thinmeta::BlockReader;
using thinmeta::DiskDeviceDetails;
using thinmeta::DiskMapping;
using thinmeta::Tree;
using thinmeta::TreeCursor;

namespace {

constexpr std::uint64_t kThinIdEnd = std::uint64_t{kMaxThinId} + 1;

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

Tree Metadata::details_tree() const {
  return {"details of thin devices", superblock_.details_root, sizeof(DiskDeviceDetails),
          kThinIdEnd};
}

std::optional<DeviceDetails> Metadata::find_device(std::uint32_t thin_id) {
  const auto details = thinmeta::find_value<DiskDeviceDetails>(reader_, details_tree(), thin_id);
  return details ? std::optional(from_disk(*details)) : std::nullopt;
}

std::vector<std::pair<std::uint32_t, DeviceDetails>> Metadata::devices() {
  std::vector<std::pair<std::uint32_t, DeviceDetails>> devices;
  const Tree tree = details_tree();
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
  const Tree roots = {"roots of the mappings", superblock_.mapping_root, sizeof(Le64), kThinIdEnd,
                      reader_.end()};
  const auto root = thinmeta::find_value<Le64>(reader_, roots, thin_id);
  if (!root && find_device(thin_id)) {
    throw Error(ErrorKind::kCorrupt, "thin device {} has details, but no mappings", thin_id);
  }
  if (!root) throw Error(ErrorKind::kNotFound, "there is no thin device {}", thin_id);

  Tree tree = {fmt::format("mappings of thin device {}", thin_id), *root, sizeof(DiskMapping)};
  // No block of a device may end beyond what 64 bits of bytes can say.
  tree.key_end = std::numeric_limits<std::uint64_t>::max() / superblock_.data_block_size.bytes();
  // With the most data blocks that the format can have, every value is one.
  if (superblock_.data_blocks < thinmeta::kMaxDataBlocks) {
    tree.value_end = superblock_.data_blocks << thinmeta::kMappingTimeBits;
  }
  return tree;
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

void Metadata::delta(std::optional<std::uint32_t> first, std::uint32_t second,
                     const std::function<void(const DeltaRange&)>& visit) {
  std::optional<Tree> first_tree;
  if (first) first_tree = mapping_tree(*first);
  thinmeta::walk_delta(reader_, first_tree, mapping_tree(second), visit);
}

}  // namespace convoy
