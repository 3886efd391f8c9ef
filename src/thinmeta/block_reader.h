// The one place that reads the metadata device. No block leaves it unverified.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "sys/aligned_buffer.h"
#include "sys/block_device.h"
#include "thinmeta/disk_format.h"

namespace convoy::thinmeta {

enum class BlockKind { kSuperblock, kNode, kBitmap, kBitmapIndex };

// Not thread-safe.
class BlockReader {
 public:
  explicit BlockReader(BlockDevice device);

  // Reads block `number` and verifies that its checksum is that of `kind`, and that it is the block
  // that it says it is. Throws kCorrupt, with the reason alone (the caller knows what it was
  // looking for), or kIo.
  AlignedBuffer read(std::uint64_t number, BlockKind kind);

  // Brings blocks into memory, from where read() takes each once: sorted, neighbours in one
  // request, several requests at a time, so that a slow device does not make each of them a wait of
  // its own. If they would be more than kMaxAhead with those that nobody has read, those are
  // forgotten. One that can't be read is left to read(), which tells why.
  void read_ahead(std::vector<std::uint64_t> numbers);
  bool is_ahead(std::uint64_t number) const { return ahead_.contains(number); }
  static constexpr std::size_t kMaxAhead = 1024;  // blocks: 4 MiB

  // The metadata end before block `end`, which they say themselves: only numbers below are accepted
  // from now on. Throws kCorrupt if the device is smaller.
  void limit_to(std::uint64_t end);

  // Block numbers are below this.
  std::uint64_t end() const { return end_; }

  // How many blocks the device has, whatever the metadata say.
  std::uint64_t device_blocks() const { return device_.size() / kBlockSize; }
  // How many blocks were read so far, ahead or not.
  std::uint64_t blocks_read() const { return blocks_read_; }

 private:
  BlockDevice device_;
  std::uint64_t end_;
  std::uint64_t blocks_read_ = 0;
  std::unordered_map<std::uint64_t, AlignedBuffer> ahead_;
};

}  // namespace convoy::thinmeta
