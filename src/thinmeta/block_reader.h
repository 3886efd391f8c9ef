// The one place that reads the metadata device. No block leaves it unverified.
#pragma once

#include <cstdint>
#include <list>
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

  // Begins to bring blocks into memory, and does not wait for them: neighbours in one request, many
  // requests at a time, so that a slow device does not make each of them a wait of its own, and
  // reads while we work on what is there. The device gets them in the order of `numbers`, which
  // should be that in which they are read later. One that can't be read is left to read(), which
  // tells why; so are those above kMaxAhead.
  void read_ahead(std::vector<std::uint64_t> numbers);
  // Was read or asked for, and not forgotten yet.
  bool is_ahead(std::uint64_t number) const {
    return young_.contains(number) || old_.contains(number) || asked_.contains(number);
  }
  static constexpr std::size_t kMaxAhead = 1024;  // blocks: 4 MiB

  // The metadata end before block `end`, which they say themselves: only numbers below are accepted
  // from now on. Throws kCorrupt if the device is smaller.
  void limit_to(std::uint64_t end);

  // Block numbers are below this.
  std::uint64_t end() const { return end_; }

  // How many blocks the device has, whatever the metadata say.
  std::uint64_t device_blocks() const { return device_.size() / kBlockSize; }
  // How many blocks the device was asked for so far.
  std::uint64_t blocks_read() const { return blocks_read_; }
  // How many times it was asked: for a block, or for many at once.
  std::uint64_t round_trips() const { return round_trips_; }

 private:
  using Blocks = std::unordered_map<std::uint64_t, Block>;

  // Blocks begin, begin + 1, ... that were asked for together.
  struct Run {
    std::uint64_t begin;
    std::size_t turn;  // when the first of them is wanted, among those that were asked for with it
    std::vector<std::shared_ptr<AlignedBuffer>> blocks = {};
    RingRead read = {};

    std::uint64_t end() const { return begin + blocks.size(); }
  };
  using Runs = std::list<Run>;

  Block find(std::uint64_t number);
  void remember(std::uint64_t number, Block block);
  void begin(Runs runs);
  void finish(Runs::iterator run);

  BlockDevice device_;
  std::uint64_t end_;
  std::uint64_t blocks_read_ = 0;
  std::uint64_t round_trips_ = 0;
  // What was read or found since `young_` was last full, and what was in the time before that.
  // Older blocks are forgotten.
  Blocks young_;
  Blocks old_;
  Runs under_way_;                                           // the oldest first
  std::unordered_map<std::uint64_t, Runs::iterator> asked_;  // each block of under_way_
  std::unique_ptr<IoRing> ring_;  // made when it is first worth it; has reads of under_way_
};

}  // namespace convoy::thinmeta
