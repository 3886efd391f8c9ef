#include "thinmeta/block_reader.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>

#include <sys/uio.h>

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

// A disk's queue takes 32 requests (NCQ), and an SSD is at its rate with fewer.
constexpr std::size_t kRequestsInFlight = 16;

// Blocks begin, begin + 1, ...
struct Run {
  std::uint64_t begin;
  std::vector<AlignedBuffer> blocks;
  bool complete = false;
};

void read_run(int fd, Run& run) {
  std::vector<iovec> pieces;
  pieces.reserve(run.blocks.size());
  for (AlignedBuffer& block : run.blocks) pieces.push_back({block.bytes().data(), kBlockSize});
  ssize_t count = 0;
  do {
    count = ::preadv(fd, pieces.data(), static_cast<int>(pieces.size()),
                     static_cast<off_t>(run.begin * kBlockSize));
  } while (count < 0 && errno == EINTR);
  run.complete = std::cmp_equal(count, pieces.size() * kBlockSize);
}

std::vector<Run> runs_of(const std::vector<std::uint64_t>& sorted) {
  std::vector<Run> runs;
  for (const std::uint64_t number : sorted) {
    if (runs.empty() || runs.back().begin + runs.back().blocks.size() != number)
      runs.push_back({number, {}});
    runs.back().blocks.emplace_back(kBlockSize);
  }
  return runs;
}

}  // namespace

BlockReader::BlockReader(BlockDevice device)
    : device_(std::move(device)), end_(device_.size() / kBlockSize) {}

AlignedBuffer BlockReader::read(std::uint64_t number, BlockKind kind) {
  if (number >= end_) {
    throw Error(ErrorKind::kCorrupt, "block {} is beyond the end, there are {} blocks", number,
                end_);
  }
  AlignedBuffer block(kBlockSize);
  if (const auto found = ahead_.extract(number)) {
    block = std::move(found.mapped());
  } else {
    read_exactly_at(device_.fd(), block.bytes(), number * kBlockSize);
    ++blocks_read_;
  }

  const auto header = struct_at<DiskBlockHeader>(block.bytes(), 0);
  const std::uint32_t checksum =
      crc32c(block.bytes().subspan(sizeof header.checksum)) ^ checksum_xor(kind);
  if (header.checksum != checksum) {
    throw Error(ErrorKind::kCorrupt, "its checksum is {:#010x} and should be {:#010x}",
                header.checksum.get(), checksum);
  }
  if (header.own_number != number) {
    throw Error(ErrorKind::kCorrupt, "it says that it is block {}", header.own_number.get());
  }
  return block;
}

void BlockReader::read_ahead(std::vector<std::uint64_t> numbers) {
  std::erase_if(numbers, [&](std::uint64_t number) { return number >= end_ || is_ahead(number); });
  std::ranges::sort(numbers);
  numbers.erase(std::ranges::unique(numbers).begin(), numbers.end());
  if (numbers.size() > kMaxAhead) numbers.resize(kMaxAhead);
  if (ahead_.size() + numbers.size() > kMaxAhead) ahead_.clear();

  std::vector<Run> runs = runs_of(numbers);
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < runs.size(); i = next++) read_run(device_.fd(), runs[i]);
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < std::min(runs.size(), kRequestsInFlight); ++i)
      others.emplace_back(work);
    work();
  }
  for (Run& run : runs) {
    if (!run.complete) continue;
    blocks_read_ += run.blocks.size();
    for (std::size_t i = 0; i < run.blocks.size(); ++i)
      ahead_.emplace(run.begin + i, std::move(run.blocks[i]));
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
