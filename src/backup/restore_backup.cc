#include "backup/restore_backup.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "backup/device_io.h"
#include "backup/ordered_workers.h"
#include "backup/pack_footers.h"
#include "backup/pack_reader.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "sys/aligned_buffer.h"
#include "sys/file.h"

namespace convoy {
namespace {

// How much a restore will write: every reference to a data pack is one chunk.
std::uint64_t bytes_present(const BackupRecord& record) {
  std::uint64_t chunks = 0;
  for (const auto& [pack, use] : record.packs) {
    if (pack.kind == PackKind::kData) chunks += use.references;
  }
  return std::min(chunks * record.chunk_size, record.info.source.size);
}

class Restore {
 public:
  // With a `pool_block`, the device holds something.
  Restore(const Store& store, const BackupRecord& record, int device_fd,
          const std::optional<std::uint64_t>& pool_block, const ProgressSink& progress,
          std::stop_token stop, const DamageSink& damaged)
      : record_(record),
        pool_block_(pool_block),
        zeros_(PackOrder::kPieceSize),
        footers_(store.objects(), record.info.source.lineage, record.packs),
        nodes_(store.objects(), record, footers_),
        device_fd_(device_fd),
        sink_(progress),
        stop_(std::move(stop)),
        damaged_(damaged),
        tools_(make_tools(worker_count(), store.objects())),
        workers_(
            worker_count(), worker_count() * 2,
            [this](Piece& piece, unsigned thread) { restore_piece(piece, tools_[thread]); },
            [](const Piece&) {}) {}

  void run();

 private:
  using Piece = PackOrder::Piece;

  // What a thread needs for its work.
  struct Tools {
    Tools(ObjectStore& objects, const BackupRecord& record, PackFooters& footers)
        : packs(objects, record, footers), buffer(PackOrder::kPieceSize) {}

    PackReader packs;
    AlignedBuffer buffer;  // the chunks of one piece, in the order of the volume
  };

  std::deque<Tools> make_tools(unsigned threads, ObjectStore& objects);
  void restore_piece(Piece& piece, Tools& tools);
  void drop_present(Piece& piece, Tools& tools) const;
  void clear(const ByteRange& range);
  void write_zeros(ByteRange range);
  void report(std::uint64_t bytes_done) const {
    if (sink_) sink_({.bytes_done = bytes_done, .bytes_total = bytes_present(record_)});
  }

  const BackupRecord& record_;
  const std::optional<std::uint64_t> pool_block_;
  AlignedBuffer zeros_;  // and room to look whether there are others
  PackFooters footers_;
  NodeReader nodes_;
  const int device_fd_;
  const ProgressSink& sink_;
  const std::stop_token stop_;
  const DamageSink& damaged_;
  std::atomic<std::uint64_t> bytes_done_ = 0;
  std::deque<Tools> tools_;  // by thread

  OrderedWorkers<Piece> workers_;  // last, since its threads use all the others
};

std::deque<Restore::Tools> Restore::make_tools(unsigned threads, ObjectStore& objects) {
  std::deque<Tools> tools;
  while (tools.size() < threads) tools.emplace_back(objects, record_, footers_);
  return tools;
}

void Restore::run() {
  report(0);
  PackOrder order(record_.chunk_size, [this](Piece piece) {
    check_stop(stop_, "restore");
    workers_.add(std::move(piece));
    report(bytes_done_);
  });
  std::uint64_t end = 0;  // of the chunks that were seen
  BackupWalk(
      {.record = record_, .nodes = nodes_, .damaged = damaged_, .work = "restore", .stop = stop_})
      .run([&](std::span<const PackReader::Item> chunks) {
        order.add(chunks);
        if (!pool_block_) return;
        for (const PackReader::Item& chunk : chunks) {
          clear({.begin = end, .end = chunk.range.begin});
          end = chunk.range.end;
        }
      });
  order.flush();
  if (pool_block_) clear({.begin = end, .end = record_.info.source.size});
  workers_.wait();
  fsync_file(device_fd_, "the restored device");
  report(bytes_present(record_));
}

// Makes a range that is zero in the backup so on the device.
void Restore::clear(const ByteRange& range) {
  check_stop(stop_, "restore");
  const std::uint64_t block = *pool_block_;
  const std::uint64_t first = (range.begin + block - 1) / block * block;
  const std::uint64_t last = range.end / block * block;
  if (first >= last) return write_zeros(range);
  write_zeros({.begin = range.begin, .end = first});
  discard_device(device_fd_, first, last - first);
  write_zeros({.begin = last, .end = range.end});
}

// Where they are not there yet.
void Restore::write_zeros(ByteRange range) {
  while (range.begin < range.end) {
    const std::uint64_t length = std::min<std::uint64_t>(range.length(), zeros_.bytes().size());
    read_device(device_fd_, zeros_, range.begin, length);
    const auto bytes = zeros_.bytes().first(length);
    if (!all_zero(bytes)) {
      std::ranges::fill(bytes, std::byte{0});
      write_device(device_fd_, bytes, range.begin);
    }
    range.begin += length;
  }
}

// Leaves out the chunks that the device holds already.
void Restore::drop_present(Piece& piece, Tools& tools) const {
  std::erase_if(piece, [&](const PackReader::Item& chunk) {
    read_device(device_fd_, tools.buffer, chunk.range.begin, chunk.range.length());
    return sha256(tools.buffer.bytes().first(chunk.range.length())) == chunk.reference.digest;
  });
}

void Restore::restore_piece(Piece& piece, Tools& tools) {
  for (const PackReader::Item& chunk : piece) bytes_done_ += chunk.range.length();
  if (pool_block_) drop_present(piece, tools);
  std::ranges::sort(piece, {}, [](const PackReader::Item& chunk) { return chunk.range.begin; });
  // Chunks have the same length, but for the volume's last one.
  const auto place_of = [&](std::size_t index) {
    return tools.buffer.bytes().subspan(index * record_.chunk_size, piece[index].range.length());
  };
  std::vector<bool> sound(piece.size());
  read_despite_damage(
      tools.packs, piece, record_.chunk_size,
      [&](std::size_t index, std::span<const std::byte> plain) {
        check_chunk_length(piece[index], plain);
        std::ranges::copy(plain, place_of(index).begin());
        sound[index] = true;
      },
      damaged_);
  // Neighbours in one go.
  for (std::size_t first = 0; first < piece.size(); ++first) {
    if (!sound[first]) continue;
    std::size_t last = first;
    while (last + 1 < piece.size() && sound[last + 1] &&
           piece[last + 1].range.begin == piece[last].range.end)
      ++last;
    const std::uint64_t begin = piece[first].range.begin;
    const std::uint64_t length = piece[last].range.end - begin;
    write_device(device_fd_, tools.buffer.bytes().subspan(first * record_.chunk_size, length),
                 begin);
    first = last;
  }
}

}  // namespace

void restore_backup(const Store& store, const BackupRecord& record, int device_fd,
                    const ProgressSink& progress, std::stop_token stop, const DamageSink& damaged) {
  if (device_size(device_fd) < record.info.source.size) {
    throw Error(ErrorKind::kInvalidArgument,
                "the device is shorter than the {} bytes of the volume in backup {}",
                record.info.source.size, record.info.uuid.to_string());
  }
  Restore(store, record, device_fd, std::nullopt, progress, std::move(stop), damaged).run();
}

void restore_difference(const Store& store, const BackupRecord& record, int device_fd,
                        std::uint64_t pool_block, const ProgressSink& progress,
                        std::stop_token stop) {
  if (device_size(device_fd) != record.info.source.size) {
    throw Error(ErrorKind::kInvalidArgument,
                "the device has {} bytes, and the volume in backup {} has {}",
                device_size(device_fd), record.info.uuid.to_string(), record.info.source.size);
  }
  Restore(store, record, device_fd, pool_block, progress, std::move(stop), {}).run();
}

}  // namespace convoy
