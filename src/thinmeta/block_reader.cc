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

// An SSD is at its rate with as many (of 64, each takes an eighth longer); a disk's queue (NCQ)
// takes 32.
constexpr unsigned kRequestsInFlight = 128;
// To make a ring takes as long as to read this many blocks from an SSD, one after the other.
constexpr std::size_t kWorthARing = 8;

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
    ++round_trips_;
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
  if (ring_) ring_->go_on();
  if (const auto asked = asked_.find(number); asked != asked_.end()) finish(asked->second);
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
  std::erase_if(numbers, [&](std::uint64_t number) { return number >= end_ || is_ahead(number); });
  if (numbers.size() > kMaxAhead) numbers.resize(kMaxAhead);
  if (numbers.empty()) return;

  std::vector<std::pair<std::uint64_t, std::size_t>> sorted;
  sorted.reserve(numbers.size());
  for (std::size_t turn = 0; turn < numbers.size(); ++turn)
    sorted.emplace_back(numbers[turn], turn);
  std::ranges::sort(sorted);
  Runs runs;
  for (const auto& [number, turn] : sorted) {
    if (!runs.empty() && number < runs.back().end()) continue;  // asked for twice
    if (runs.empty() || runs.back().end() != number) runs.push_back({number, turn});
    Run& run = runs.back();
    const auto& block = run.blocks.emplace_back(std::make_shared<AlignedBuffer>(kBlockSize));
    run.read.pieces.push_back({block->bytes().data(), kBlockSize});
    run.turn = std::min(run.turn, turn);
    ++blocks_read_;
  }
  runs.sort([](const Run& a, const Run& b) { return a.turn < b.turn; });
  ++round_trips_;
  begin(std::move(runs));
}

void BlockReader::begin(Runs runs) {
  if (!ring_ && runs.size() >= kWorthARing)
    ring_ = std::make_unique<IoRing>(device_.fd(), kRequestsInFlight);
  while (!runs.empty()) {
    const auto run = runs.begin();
    run->read.offset = run->begin * kBlockSize;
    if (ring_) {
      ring_->add(run->read);
    } else {
      read_at_once(device_.fd(), run->read);
    }
    under_way_.splice(under_way_.end(), runs, run);
    for (std::size_t i = 0; i < run->blocks.size(); ++i) asked_[run->begin + i] = run;
    if (!ring_) finish(run);
  }
  // What nobody has come for stays no longer than what somebody has.
  while (asked_.size() > kMaxAhead) finish(under_way_.begin());
  if (ring_) ring_->go_on();
}

// Its blocks are in memory then, or forgotten.
void BlockReader::finish(Runs::iterator run) {
  if (ring_) ring_->wait_for(run->read);
  for (std::size_t i = 0; i < run->blocks.size(); ++i) {
    asked_.erase(run->begin + i);
    if (run->read.state == RingRead::State::kComplete)
      remember(run->begin + i, std::move(run->blocks[i]));
  }
  under_way_.erase(run);
}

void BlockReader::limit_to(std::uint64_t end) {
  if (end > end_) {
    throw Error(ErrorKind::kCorrupt, "the device has {} blocks of 4 KiB, but its metadata need {}",
                end_, end);
  }
  end_ = end;
}

}  // namespace convoy::thinmeta
