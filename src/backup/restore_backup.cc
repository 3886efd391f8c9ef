#include "backup/restore_backup.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "backup/device_io.h"
#include "backup/ordered_workers.h"
#include "backup/pack_footers.h"
#include "backup/pack_reader.h"
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
  Restore(const Store& store, const BackupRecord& record, int device_fd,
          const ProgressSink& progress, std::stop_token stop, const DamageSink& damaged)
      : record_(record),
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
            [this](const Piece& piece) {
              for (const PackReader::Item& chunk : piece) bytes_done_ += chunk.range.length();
            }) {}

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
  void restore_piece(Piece& piece, Tools& tools) const;
  void report(std::uint64_t bytes_done) const {
    if (sink_) sink_({.bytes_done = bytes_done, .bytes_total = bytes_present(record_)});
  }

  const BackupRecord& record_;
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
  BackupWalk(
      {.record = record_, .nodes = nodes_, .damaged = damaged_, .work = "restore", .stop = stop_})
      .run([&](std::span<const PackReader::Item> chunks) { order.add(chunks); });
  order.flush();
  workers_.wait();
  fsync_file(device_fd_, "the restored device");
  report(bytes_present(record_));
}

void Restore::restore_piece(Piece& piece, Tools& tools) const {
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
  Restore(store, record, device_fd, progress, std::move(stop), damaged).run();
}

}  // namespace convoy
