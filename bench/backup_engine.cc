// The backup engine by itself, on an image in a file, and the least that any engine has to do: for
// bench/backup.py, bench/s3.py and tests/s3. Prints one line of JSON.
//
//   backup_engine create IMAGE STORE [PARENT BLOCKS]
//       PARENT: <lineage>/<backup>; BLOCKS: a file of "offset length" lines, what may have changed
//   backup_engine restore IMAGE STORE <lineage>/<backup>
//   backup_engine list STORE
//   backup_engine delete STORE <lineage>/<backup>
//   backup_engine verify STORE <lineage>/<backup>
//   backup_engine gc STORE LINEAGE
//       STORE: a directory, or the URL of a destination
//   backup_engine floor IMAGE
//       SHA-256 and zstd -1 of every chunk that is not zero, on all CPUs
//   backup_engine restore-floor IMAGE OUTPUT
//       the way back: compresses first, then decompresses, hashes and writes, and tells of that
// create and floor take --chunk BYTES and --compression as "convoy backup create" does, and create
// --times N, for backups one upon the other.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <zstd.h>

#include "backup/backups.h"
#include "backup/collect_garbage.h"
#include "backup/create_backup.h"
#include "backup/destination.h"
#include "backup/device_io.h"
#include "backup/restore_backup.h"
#include "backup/verify_backup.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "objectstore/directory_store.h"
#include "sys/file.h"

namespace convoy {
namespace {

using Bytes = std::vector<std::byte>;

struct Options {
  std::vector<std::string> words;
  std::uint32_t chunk = kDefaultChunkSize;
  unsigned times = 1;
  Compression compression;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (word == "--chunk") {
      options.chunk = static_cast<std::uint32_t>(std::stoul(value));
    } else if (word == "--times") {
      options.times = static_cast<unsigned>(std::stoul(value));
    } else if (word == "--compression") {
      options.compression = Compression::parse(value);
    } else {
      options.words.push_back(word);
      continue;
    }
    ++i;
  }
  return options;
}

struct Name {
  Uuid lineage, backup;
};

Name parse_name(const std::string& text) {
  const auto slash = text.find('/');
  return {Uuid::parse(text.substr(0, slash)).value(), Uuid::parse(text.substr(slash + 1)).value()};
}

std::unique_ptr<ObjectStore> open_objects(const std::string& place) {
  if (place.find("://") == std::string::npos) return std::make_unique<DirectoryStore>(place);
  return Destinations().open(Destination::parse(place)).objects;
}

class Clock {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void print_times(const Clock& clock, const std::string& more) {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  fmt::print("{{\"seconds\": {:.3f}, \"cpu\": {:.2f}, \"memory\": {}{}}}\n", clock.seconds(),
             seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss * 1024, more);
}

std::vector<SourceRange> read_blocks(const std::string& path, std::uint64_t size) {
  std::vector<SourceRange> ranges;
  std::ifstream file(path);
  std::uint64_t offset = 0, length = 0;
  while (file >> offset >> length) {
    if (offset < size) ranges.push_back({{offset, std::min(offset + length, size)}});
  }
  return ranges;
}

void create(const Options& options) {
  const UniqueFd image = open_file(options.words.at(1), O_RDONLY);
  const std::uint64_t size = device_size(image.get());
  const Clock clock;
  const auto objects = open_objects(options.words.at(2));
  BackupPlan plan;
  plan.source = {.lineage = Uuid::generate(),
                 .driver = "devicemapper",
                 .volume = {Uuid::generate(), "bench", now(), "ext4"},
                 .snapshot = {Uuid::generate(), "bench", now()},
                 .size = size};
  plan.device_fd = image.get();
  plan.chunk_size = options.chunk;
  plan.compression = options.compression;
  plan.ranges = {{{0, size}}};
  if (options.words.size() > 3) {
    const Name parent = parse_name(options.words.at(3));
    plan.source.lineage = parent.lineage;
    plan.parent = parent.backup;
    plan.ranges = read_blocks(options.words.at(4), size);
  }
  BackupRecord record;
  for (unsigned i = 0; i < options.times; ++i) {
    const Store store = Store::open_or_create(*objects, std::nullopt);
    record = create_backup(store, plan, {}, {});
    plan.parent = record.info.uuid;
  }
  print_times(clock,
              fmt::format(R"(, "backup": "{}/{}", "stored": {}, "read": {})",
                          plan.source.lineage.to_string(), record.info.uuid.to_string(),
                          record.info.statistics.bytes_stored, record.info.statistics.bytes_read));
}

// A backup that is there, by the words for its store and its name.
struct OpenBackup {
  OpenBackup(const std::string& place, const std::string& name)
      : objects(open_objects(place)), store(Store::open(*objects)) {
    const auto [lineage, backup] = parse_name(name);
    record = read_backup(store, lineage, backup);
  }

  std::unique_ptr<ObjectStore> objects;
  Store store;
  BackupRecord record;
};

void restore(const Options& options) {
  const Clock clock;
  const OpenBackup backup(options.words.at(2), options.words.at(3));
  const UniqueFd image = open_file(options.words.at(1), O_RDWR | O_CREAT | O_TRUNC);
  if (::ftruncate(image.get(), static_cast<off_t>(backup.record.info.source.size)) != 0)
    throw system_error(errno, "ftruncate");
  restore_backup(backup.store, backup.record, image.get(), {}, {});
  print_times(clock, "");
}

void list(const Options& options) {
  const Clock clock;
  const auto objects = open_objects(options.words.at(1));
  const BackupList list = list_backups(Store::open(*objects), std::nullopt);
  print_times(clock, fmt::format(R"(, "backups": {})", list.backups.size()));
}

void remove(const Options& options) {
  const Clock clock;
  const auto objects = open_objects(options.words.at(1));
  const Name name = parse_name(options.words.at(2));
  delete_backup(Store::open(*objects), name.lineage, name.backup, {}, {});
  print_times(clock, "");
}

void verify(const Options& options) {
  const Clock clock;
  const OpenBackup backup(options.words.at(1), options.words.at(2));
  Verifier verifier(backup.store, backup.record.info.source.lineage, VerifyDepth::kFull);
  const auto damage = verifier.verify(backup.record, {}, {});
  print_times(clock, fmt::format(R"(, "damaged": {})", damage.size()));
}

void collect(const Options& options) {
  const Clock clock;
  const auto objects = open_objects(options.words.at(1));
  const Collection collection =
      collect_garbage(Store::open(*objects), Uuid::parse(options.words.at(2)).value(),
                      CollectionMode::kHalfDead, {}, {});
  print_times(clock, fmt::format(R"(, "packs": {})", collection.packs.size()));
}

// Calls `work` for the number of every chunk, on all CPUs, several neighbours at a time.
void on_all_cpus(std::uint64_t chunks,
                 const std::function<void(std::uint64_t first, std::uint64_t end)>& work) {
  constexpr std::uint64_t kAtOnce = 16;
  std::atomic<std::uint64_t> next = 0;
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < std::thread::hardware_concurrency(); ++i) {
    threads.emplace_back([&] {
      for (std::uint64_t first = 0; (first = next.fetch_add(kAtOnce)) < chunks;)
        work(first, std::min(first + kAtOnce, chunks));
    });
  }
}

void floor(const Options& options, bool way_back) {
  const UniqueFd image = open_file(options.words.at(1), O_RDONLY);
  const std::uint64_t size = device_size(image.get());
  const std::uint64_t chunk = options.chunk;
  const std::uint64_t chunks = (size - 1) / chunk + 1;
  std::atomic<std::uint64_t> stored = 0;
  std::vector<Bytes> frames(way_back ? chunks : 0);
  Clock clock;
  on_all_cpus(chunks, [&](std::uint64_t first, std::uint64_t end) {
    thread_local Bytes plain, packed;
    thread_local const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(
        ZSTD_createCCtx(), &ZSTD_freeCCtx);
    plain.resize(std::min(end * chunk, size) - first * chunk);
    packed.resize(ZSTD_compressBound(chunk));
    read_exactly_at(image.get(), plain, first * chunk);
    for (std::uint64_t i = first; i < end; ++i) {
      const auto bytes = std::span<const std::byte>(plain).subspan((i - first) * chunk);
      const auto one = bytes.first(std::min<std::size_t>(bytes.size(), chunk));
      if (all_zero(one)) continue;
      sha256(one);
      const std::size_t length =
          ZSTD_compressCCtx(context.get(), packed.data(), packed.size(), one.data(), one.size(), 1);
      stored += std::min(length, one.size());
      if (way_back) frames[i].assign(packed.begin(), packed.begin() + static_cast<long>(length));
    }
  });
  if (!way_back) return print_times(clock, fmt::format(", \"stored\": {}", stored.load()));

  const UniqueFd output = open_file(options.words.at(2), O_RDWR | O_CREAT | O_TRUNC);
  if (::ftruncate(output.get(), static_cast<off_t>(size)) != 0)
    throw system_error(errno, "ftruncate");
  clock = {};
  on_all_cpus(chunks, [&](std::uint64_t first, std::uint64_t end) {
    thread_local Bytes plain;
    plain.resize(chunk);
    for (std::uint64_t i = first; i < end; ++i) {
      if (frames[i].empty()) continue;
      const std::size_t length =
          ZSTD_decompress(plain.data(), plain.size(), frames[i].data(), frames[i].size());
      const auto one = std::span<const std::byte>(plain).first(length);
      sha256(one);
      write_all_at(output.get(), one, i * chunk);
    }
  });
  fsync_file(output.get(), "the output");
  print_times(clock, "");
}

int run(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const std::string& command = options.words.at(0);
  if (command == "create")
    create(options);
  else if (command == "restore")
    restore(options);
  else if (command == "list")
    list(options);
  else if (command == "delete")
    remove(options);
  else if (command == "verify")
    verify(options);
  else if (command == "gc")
    collect(options);
  else if (command == "floor")
    floor(options, false);
  else if (command == "restore-floor")
    floor(options, true);
  else
    throw Error(ErrorKind::kInvalidArgument, "there is no command {}", command);
  return 0;
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  try {
    return convoy::run(argc, argv);
  } catch (const convoy::Error& error) {
    fmt::print(stderr, "backup_engine: {}\n", error.message());
  } catch (const std::exception& error) {
    fmt::print(stderr, "backup_engine: {}\n", error.what());
  }
  return 1;
}
