// The one place that reads the metadata device. No block leaves it unverified.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "sys/aligned_buffer.h"
#include "sys/block_device.h"
#include "sys/io_ring.h"
#include "thinmeta/disk_format.h"

namespace convoy::thinmeta {

enum class BlockKind { kSuperblock, kNode, kBitmap, kBitmapIndex };

// The content of a block, which nobody changes any more.
using Block = std::shared_ptr<const AlignedBuffer>;

// Not thread-safe.
class BlockReader {
 public:
  explicit BlockReader(BlockDevice device);

  // Reads block `number` and verifies that its checksum is that of `kind`, and that it is the block
  // that it says it is. Comes from memory if it was read lately, but for a superblock, which the
  // kernel changes in place. Throws kCorrupt, with the reason alone (the caller knows what it was
  // looking for), or kIo.
  Block read(std::uint64_t number, BlockKind kind);

  // Brings blocks into memory: sorted, neighbours in one request, many requests at a time, so that
  // a slow device does not make each of them a wait of its own. One that can't be read is left to
  // read(), which tells why; so are those above kMaxAhead.
  void read_ahead(std::vector<std::uint64_t> numbers);
  bool is_in_memory(std::uint64_t number) const {
    return young_.contains(number) || old_.contains(number);
  }
  static constexpr std::size_t kMaxAhead = 1024;  // blocks: 4 MiB

  // The metadata end before block `end`, which they say themselves: only numbers below are accepted
  // from now on. Throws kCorrupt if the device is smaller.
  void limit_to(std::uint64_t end);

  // Block numbers are below this.
  std::uint64_t end() const { return end_; }

  // How many blocks the device has, whatever the metadata say.
  std::uint64_t device_blocks() const { return device_.size() / kBlockSize; }
  // How many blocks were read from the device so far.
  std::uint64_t blocks_read() const { return blocks_read_; }
  // How many times somebody waited for the device so far: for a block, or for many at once.
  std::uint64_t waits() const { return waits_; }

 private:
  using Blocks = std::unordered_map<std::uint64_t, Block>;

  Block find(std::uint64_t number);
  void remember(std::uint64_t number, Block block);

  BlockDevice device_;
  std::uint64_t end_;
  std::uint64_t blocks_read_ = 0;
  std::uint64_t waits_ = 0;
  std::unique_ptr<IoRing> ring_;  // made when it is first worth it
  // What was read or asked for since `young_` was last full, and what was in the time before that.
  // Older blocks are forgotten.
  Blocks young_;
  Blocks old_;
};

}  // namespace convoy::thinmeta
