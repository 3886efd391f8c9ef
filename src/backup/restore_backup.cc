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
#include "base/limits.h"
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

// Writes neighbours in one go. One thread.
class GatheredWriter {
 public:
  explicit GatheredWriter(int device_fd) : device_fd_(device_fd), buffer_(kWriteSize) {}

  // As write_device(); what is gathered is written when something comes that does not follow it.
  void write(std::span<const std::byte> data, std::uint64_t offset) {
    if (offset != gathered_.end || gathered_.length() + data.size() > kWriteSize) {
      flush();
      gathered_ = {.begin = offset, .end = offset};
    }
    std::ranges::copy(data, buffer_.bytes().subspan(gathered_.length()).begin());
    gathered_.end += data.size();
  }

  void flush() {
    if (gathered_.length() == 0) return;
    write_device(device_fd_, buffer_.bytes().first(gathered_.length()), gathered_.begin);
    gathered_ = {};
  }

 private:
  // What each thread has in memory of the volume, beside a run of a pack.
  static constexpr std::uint64_t kWriteSize = kMiB;

  const int device_fd_;
  AlignedBuffer buffer_;
  ByteRange gathered_;
};

class Restore {
 public:
  // With a `pool_block`, the device holds something.
  Restore(const Store& store, const BackupRecord& record, int device_fd,
          const std::optional<std::uint64_t>& pool_block, const ProgressSink& progress,
          std::stop_token stop, const DamageSink& damaged)
      : record_(record),
        total_(bytes_present(record)),
        pool_block_(pool_block),
        zeros_(kMiB),
        footers_(store.objects(), record.info.source.lineage, record.packs),
        nodes_(store.objects(), record, footers_),
        device_fd_(device_fd),
        sink_(progress),
        stop_(std::move(stop)),
        damaged_(damaged),
        tools_(make_tools(store.objects())),
        workers_(
            fetcher_count(), fetcher_count() * std::size_t{2},
            [this](Piece& piece, unsigned thread) { restore_piece(piece, tools_[thread]); },
            [](const Piece&) {},
            [this] {
              check_stop(stop_, "restore");
              report(bytes_done_);
            }) {}

  void run();

 private:
  using Piece = PackOrder::Piece;

  // What a thread needs for its work.
  struct Tools {
    Tools(ObjectStore& objects, const BackupRecord& record, PackFooters& footers, int device_fd)
        : packs(objects, record, footers), writer(device_fd), present(record.chunk_size) {}

    PackReader packs;
    GatheredWriter writer;
    AlignedBuffer present;  // a chunk that the device holds
  };

  std::deque<Tools> make_tools(ObjectStore& objects);
  void restore_piece(Piece& piece, Tools& tools);
  void drop_present(Piece& piece, Tools& tools) const;
  void clear(const ByteRange& range);
  void write_zeros(ByteRange range);
  void report(std::uint64_t bytes_done) const {
    if (sink_) sink_({.bytes_done = std::min(bytes_done, total_), .bytes_total = total_});
  }

  const BackupRecord& record_;
  const std::uint64_t total_;
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

std::deque<Restore::Tools> Restore::make_tools(ObjectStore& objects) {
  std::deque<Tools> tools;
  while (tools.size() < fetcher_count()) tools.emplace_back(objects, record_, footers_, device_fd_);
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
  report(total_);
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
    read_device(device_fd_, tools.present, chunk.range.begin, chunk.range.length());
    return sha256(tools.present.bytes().first(chunk.range.length())) == chunk.reference.digest;
  });
}

void Restore::restore_piece(Piece& piece, Tools& tools) {
  check_stop(stop_, "restore");
  std::uint64_t uncounted = 0;
  for (const PackReader::Item& chunk : piece) uncounted += chunk.range.length();
  if (pool_block_) drop_present(piece, tools);
  read_despite_damage(
      tools.packs, piece, record_.chunk_size,
      [&](std::size_t index, std::span<const std::byte> plain) {
        check_stop(stop_, "restore");
        check_chunk_length(piece[index], plain);
        tools.writer.write(plain, piece[index].range.begin);
        const std::uint64_t counted = std::min<std::uint64_t>(uncounted, plain.size());
        bytes_done_ += counted;
        uncounted -= counted;
      },
      damaged_);
  tools.writer.flush();
  bytes_done_ += uncounted;  // what was there already, and what is lost
}

// Another host may delete the backup meanwhile, and then its packs go: that is no damage.
void run_restore(const Store& store, const BackupRecord& record,
                 const std::atomic<bool>& is_damaged, Restore&& restore) {
  const auto throw_if_deleted = [&] {
    if (store.objects().head(backup_key(record.info.source.lineage, record.info.uuid))) return;
    throw Error(ErrorKind::kNotFound, "backup {} was deleted while it was being restored",
                record.info.uuid.to_string());
  };
  try {
    restore.run();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCorrupt) throw_if_deleted();
    throw;
  }
  if (is_damaged) throw_if_deleted();
}

}  // namespace

void restore_backup(const Store& store, const BackupRecord& record, int device_fd,
                    const ProgressSink& progress, std::stop_token stop, const DamageSink& damaged) {
  if (device_size(device_fd) < record.info.source.size) {
    throw Error(ErrorKind::kInvalidArgument,
                "the device is shorter than the {} bytes of the volume in backup {}",
                record.info.source.size, record.info.uuid.to_string());
  }
  std::atomic<bool> is_damaged = false;
  DamageSink noted;
  if (damaged) {
    noted = [&](Damage damage) {
      is_damaged = true;
      damaged(std::move(damage));
    };
  }
  run_restore(store, record, is_damaged,
              Restore(store, record, device_fd, std::nullopt, progress, std::move(stop), noted));
}

void restore_difference(const Store& store, const BackupRecord& record, int device_fd,
                        std::uint64_t pool_block, const ProgressSink& progress,
                        std::stop_token stop) {
  if (device_size(device_fd) != record.info.source.size) {
    throw Error(ErrorKind::kInvalidArgument,
                "the device has {} bytes, and the volume in backup {} has {}",
                device_size(device_fd), record.info.uuid.to_string(), record.info.source.size);
  }
  run_restore(store, record, false,
              Restore(store, record, device_fd, pool_block, progress, std::move(stop), {}));
}

}  // namespace convoy
