// Reading a thin pool's metadata: which thin devices there are, and which of their blocks differ.
//
// It never writes, and knows no ioctl. All calls but check() find only damage in what they read.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "sys/block_device.h"
#include "thinmeta/block_reader.h"
#include "thinmeta/check.h"
#include "thinmeta/delta.h"
#include "thinmeta/superblock.h"

namespace convoy {

enum class Root {
  kLive,  // the newest transaction; the pool must not be active
  kHeld,  // the metadata snapshot of a live pool, which must be held until the last call
};

struct DeviceDetails {
  std::uint64_t mapped_blocks = 0;     // in pool blocks
  std::uint64_t transaction_id = 0;    // the pool's when the device was created
  std::uint32_t creation_time = 0;     // the superblock's time, likewise
  std::uint32_t snapshotted_time = 0;  // the superblock's time when it was last snapshotted

  bool operator==(const DeviceDetails&) const = default;
};

// A block of a thin device.
struct Mapping {
  PoolBlocks block;
  std::uint64_t data_block = 0;
  std::uint32_t time = 0;  // the superblock's, when it was mapped
};

// Every call throws kCorrupt if something that it reads is damaged, naming tree, block and keys,
// and kIo if it can't be read. The object stays usable. Not thread-safe; several objects may read
// one device.
class Metadata {
 public:
  // Reads the superblock. `device` must have been opened with O_DIRECT if it is a pool's, as
  // BlockDevice does: the kernel writes metadata past the page cache. Throws kUnsupported for a
  // format that we don't know, and kNotFound for kHeld if the pool holds no metadata snapshot.
  Metadata(BlockDevice device, Root root);

  // As it was at construction. With kHeld, transaction id, time and roots are those of the metadata
  // snapshot.
  const Superblock& superblock() const { return superblock_; }

  // The details of thin device `thin_id`; nothing if there is none.
  std::optional<DeviceDetails> find_device(std::uint32_t thin_id);

  // All thin devices, by ascending id.
  std::vector<std::pair<std::uint32_t, DeviceDetails>> devices();

  // Gives `visit`, in ascending order, the ranges of pool blocks that differ between thin devices
  // `first` and `second`; neighbours with the same change come as one range. Without `first`, every
  // mapped block of `second` comes as kAdded. Two mappings of a block are the same if they lead to
  // the same data block; when they were made does not matter. Time and blocks read are in
  // proportion to what differs (subtrees that both devices share are not read), memory to the
  // height of the trees. What `visit` was given counts only if the call returns; what `visit`
  // throws ends it. Throws kNotFound if there is no such device.
  void delta(std::optional<std::uint32_t> first, std::uint32_t second,
             const std::function<void(const DeltaRange&)>& visit);

  // Throws kNotFound if there is no such device, kCorrupt if it has no mappings.
  void require_device(std::uint32_t thin_id) { mapping_tree(thin_id); }

  // As delta, block by block with the data blocks, and the unchanged ones too if `same` says so;
  // then everything is read.
  void compare(std::optional<std::uint32_t> first, std::uint32_t second, Same same,
               const std::function<void(const BlockPair&)>& visit);

  // Gives `visit` the mapped blocks of a thin device, in ascending order. Throws kNotFound if there
  // is no such device.
  void mappings(std::uint32_t thin_id, const std::function<void(const Mapping&)>& visit);

  // Looks for damage, in all of the metadata if `depth` says so. A space map can only be checked
  // with Root::kLive: a metadata snapshot has none. Damage is given to `observer`, which may throw
  // to end the check, and does not end it by itself.
  void check(CheckDepth depth, const CheckObserver& observer);

  // How many blocks of 4 KiB the metadata device has.
  std::uint64_t device_blocks() const { return reader_.device_blocks(); }

  // How many blocks of 4 KiB the device was asked for since construction began.
  std::uint64_t blocks_read() const { return reader_.blocks_read(); }
  // And how many times it was asked: once for all that are read together.
  std::uint64_t round_trips() const { return reader_.round_trips(); }

 private:
  thinmeta::Tree mapping_tree(std::uint32_t thin_id);

  thinmeta::BlockReader reader_;
  Superblock superblock_;
};

}  // namespace convoy
