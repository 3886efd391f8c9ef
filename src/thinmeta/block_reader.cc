#include "thinmeta/block_reader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "sys/file.h"
#include "thinmeta/crc32c.h"
#include "thinmeta/disk_format.h"

namespace convoy::thinmeta {
namespace {

constexpr std::uint32_t checksum_xor(BlockKind kind) {
  switch (kind) {
    case BlockKind::kSuperblock:
      return kSuperblockChecksumXor;
    case BlockKind::kNode:
      return kNodeChecksumXor;
    case BlockKind::kBitmap:
      return kBitmapChecksumXor;
    case BlockKind::kBitmapIndex:
      return kBitmapIndexChecksumXor;
  }
  return 0;  // there is no other
}

// An SSD is at its rate with as many; a disk's queue (NCQ) takes 32.
constexpr unsigned kRequestsInFlight = 64;
// To make a ring takes as long as to read this many blocks from an SSD, one after the other.
constexpr std::size_t kWorthARing = 8;

// Blocks begin, begin + 1, ...
struct Run {
  std::uint64_t begin;
  std::vector<std::shared_ptr<AlignedBuffer>> blocks;
};

std::vector<Run> runs_of(const std::vector<std::uint64_t>& sorted) {
  std::vector<Run> runs;
  for (const std::uint64_t number : sorted) {
    if (runs.empty() || runs.back().begin + runs.back().blocks.size() != number)
      runs.push_back({number, {}});
    runs.back().blocks.push_back(std::make_shared<AlignedBuffer>(kBlockSize));
  }
  return runs;
}

std::vector<RingRead> reads_of(const std::vector<Run>& runs) {
  std::vector<RingRead> reads(runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    reads[i].offset = runs[i].begin * kBlockSize;
    for (const auto& block : runs[i].blocks)
      reads[i].pieces.push_back({block->bytes().data(), kBlockSize});
  }
  return reads;
}

}  // namespace

BlockReader::BlockReader(BlockDevice device)
    : device_(std::move(device)), end_(device_.size() / kBlockSize) {}

Block BlockReader::read(std::uint64_t number, BlockKind kind) {
  if (number >= end_) {
    throw Error(ErrorKind::kCorrupt, "block {} is beyond the end, there are {} blocks", number,
                end_);
  }
  Block block = kind == BlockKind::kSuperblock ? nullptr : find(number);
  if (!block) {
    const auto content = std::make_shared<AlignedBuffer>(kBlockSize);
    read_exactly_at(device_.fd(), content->bytes(), number * kBlockSize);
    ++blocks_read_;
    ++waits_;
    block = content;
    remember(number, block);
  }

  const auto header = struct_at<DiskBlockHeader>(block->bytes(), 0);
  const std::uint32_t checksum =
      crc32c(block->bytes().subspan(sizeof header.checksum)) ^ checksum_xor(kind);
  if (header.checksum != checksum) {
    throw Error(ErrorKind::kCorrupt, "its checksum is {:#010x} and should be {:#010x}",
                header.checksum.get(), checksum);
  }
  if (header.own_number != number) {
    throw Error(ErrorKind::kCorrupt, "it says that it is block {}", header.own_number.get());
  }
  return block;
}

Block BlockReader::find(std::uint64_t number) {
  if (const auto found = young_.find(number); found != young_.end()) return found->second;
  const auto found = old_.extract(number);
  if (!found) return nullptr;
  remember(number, found.mapped());
  return found.mapped();
}

void BlockReader::remember(std::uint64_t number, Block block) {
  if (young_.size() == kMaxAhead) old_ = std::exchange(young_, {});
  young_[number] = std::move(block);
}

void BlockReader::read_ahead(std::vector<std::uint64_t> numbers) {
  std::erase_if(numbers,
                [&](std::uint64_t number) { return number >= end_ || is_in_memory(number); });
  std::ranges::sort(numbers);
  numbers.erase(std::ranges::unique(numbers).begin(), numbers.end());
  if (numbers.size() > kMaxAhead) numbers.resize(kMaxAhead);
  if (numbers.empty()) return;
  ++waits_;

  const std::vector<Run> runs = runs_of(numbers);
  if (!ring_ && runs.size() >= kWorthARing) ring_ = std::make_unique<IoRing>(kRequestsInFlight);
  std::vector<RingRead> reads = reads_of(runs);
  if (ring_) {
    ring_->read(device_.fd(), reads);
  } else {
    read_in_turn(device_.fd(), reads);
  }
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (!reads[i].complete) continue;
    blocks_read_ += runs[i].blocks.size();
    for (std::size_t k = 0; k < runs[i].blocks.size(); ++k)
      remember(runs[i].begin + k, runs[i].blocks[k]);
  }
}

void BlockReader::limit_to(std::uint64_t end) {
  if (end > end_) {
    throw Error(ErrorKind::kCorrupt, "the device has {} blocks of 4 KiB, but its metadata need {}",
                end_, end);
  }
  end_ = end;
}

}  // namespace convoy::thinmeta
