// What a store asks for after many incremental backups, beside one full backup of the same volume:
// for bench/decay.py. Prints one line of JSON.
//
//   backup_decay IMAGE STORE BACKUPS WRITES KEEP
//
// Makes BACKUPS incremental backups of the image, which it changes, before each of them WRITES
// times at 4 KiB: nine of ten within a tenth of the image, as databases do. Only the newest KEEP
// stay. Then counts the requests that a restore, verifications and a collection of garbage make.
#include <array>
#include <atomic>
#include <deque>
#include <random>
#include <set>

#include <fcntl.h>
#include <fmt/format.h>

#include "backup/backups.h"
#include "backup/collect_garbage.h"
#include "backup/create_backup.h"
#include "backup/device_io.h"
#include "backup/restore_backup.h"
#include "backup/verify_backup.h"
#include "base/error.h"
#include "objectstore/directory_store.h"
#include "sys/file.h"

namespace convoy {
namespace {

constexpr std::uint64_t kPage = 4096;

// A store that counts.
class CountingStore : public ObjectStore {
 public:
  explicit CountingStore(ObjectStore& objects) : objects_(objects) {}

  struct Counts {
    std::uint64_t requests = 0;
    std::uint64_t bytes = 0;  // read or written
  };
  Counts take() { return {.requests = requests_.exchange(0), .bytes = bytes_.exchange(0)}; }

  void put(const std::string& key, std::span<const std::byte> data) override {
    count(data.size());
    objects_.put(key, data);
  }
  PutOutcome put_if_absent(const std::string& key, std::span<const std::byte> data) override {
    count(data.size());
    return objects_.put_if_absent(key, data);
  }
  std::vector<std::byte> get(const std::string& key, std::uint64_t max_size) override {
    auto data = objects_.get(key, max_size);
    count(data.size());
    return data;
  }
  std::size_t get_range(const std::string& key, std::uint64_t offset,
                        std::span<std::byte> out) override {
    count(out.size());
    return objects_.get_range(key, offset, out);
  }
  std::optional<ObjectInfo> head(const std::string& key) override {
    count(0);
    return objects_.head(key);
  }
  // A thousand keys are one request, as in S3.
  void list(const std::string& prefix,
            const std::function<void(const ObjectInfo&)>& visit) override {
    count(0);
    std::uint64_t keys = 0;
    objects_.list(prefix, [&](const ObjectInfo& info) {
      if (++keys % 1000 == 0) count(0);
      visit(info);
    });
  }
  std::vector<std::string> list_directories(const std::string& prefix) override {
    count(0);
    return objects_.list_directories(prefix);
  }
  void remove(const std::string& key) override {
    count(0);
    objects_.remove(key);
  }

 private:
  void count(std::uint64_t bytes) {
    ++requests_;
    bytes_ += bytes;
  }

  ObjectStore& objects_;
  std::atomic<std::uint64_t> requests_ = 0;
  std::atomic<std::uint64_t> bytes_ = 0;
};

BackupPlan plan_for(int image, const Uuid& lineage) {
  const std::uint64_t size = device_size(image);
  return {.source = {.lineage = lineage,
                     .driver = "devicemapper",
                     .volume = {lineage, "bench", now(), "ext4"},
                     .snapshot = {Uuid::generate(), "bench", now()},
                     .size = size},
          .device_fd = image,
          .ranges = {{{0, size}, SourceKind::kRead}}};
}

std::string to_json(const CountingStore::Counts& counts) {
  return fmt::format("[{}, {}]", counts.requests, counts.bytes);
}

std::string measure(const Store& store, CountingStore& objects, const BackupRecord& record) {
  const Uuid& lineage = record.info.source.lineage;
  std::string line = "{";
  const auto add = [&](const char* name, const std::function<void()>& work) {
    objects.take();
    work();
    line +=
        fmt::format(R"({}"{}": {})", line.size() > 1 ? ", " : "", name, to_json(objects.take()));
  };
  const UniqueFd target(::open("/tmp", O_TMPFILE | O_RDWR, 0600));
  if (!target || ::ftruncate(target.get(), static_cast<off_t>(record.info.source.size)) != 0)
    throw system_error(errno, "a temporary file");
  add("restore", [&] { restore_backup(store, record, target.get(), {}, {}); });
  for (const auto depth : {VerifyDepth::kFull, VerifyDepth::kQuick}) {
    add(depth == VerifyDepth::kFull ? "verify" : "verify --quick", [&] {
      Verifier verifier(store, lineage, depth);
      if (!verifier.verify(record, {}, {}).empty())
        throw Error(ErrorKind::kCorrupt, "the store is damaged");
    });
  }
  add("gc --dry-run", [&] { collect_garbage(store, lineage, CollectionMode::kPlanOnly, {}, {}); });
  return line + "}";
}

int run(char** words) {
  const UniqueFd image = open_file(words[1], O_RDWR);
  DirectoryStore directory(words[2]);
  CountingStore objects(directory);
  const Store store = Store::open_or_create(objects, std::nullopt);
  const int backups = std::stoi(words[3]);
  const int writes = std::stoi(words[4]);
  const std::size_t keep = std::stoul(words[5]);

  std::mt19937_64 dice(1);
  BackupPlan plan = plan_for(image.get(), Uuid::generate());
  const std::uint64_t pages = plan.source.size / kPage;
  BackupRecord record = create_backup(store, plan, {}, {});
  std::deque<Uuid> kept{record.info.uuid};
  std::uint64_t stored = 0;
  for (int i = 0; i < backups; ++i) {
    std::set<std::uint64_t> touched;
    for (int write = 0; write < writes; ++write) {
      const std::uint64_t page = dice() % (dice() % 10 == 0 ? pages : pages / 10);
      std::array<std::uint64_t, kPage / 8> content = {};
      for (std::uint64_t& word : content) word = dice();
      write_all_at(image.get(), std::as_bytes(std::span(content)), page * kPage);
      touched.insert(page * kPage / kMaxChunkSize);
    }
    plan.ranges.clear();
    for (const std::uint64_t chunk : touched)
      plan.ranges.push_back(
          {{chunk * kMaxChunkSize, std::min((chunk + 1) * kMaxChunkSize, plan.source.size)},
           SourceKind::kRead});
    plan.parent = record.info.uuid;
    record = create_backup(store, plan, {}, {});
    stored += record.info.statistics.bytes_stored;
    kept.push_back(record.info.uuid);
    if (kept.size() > keep) {
      delete_backup(store, plan.source.lineage, kept.front());
      kept.pop_front();
    }
  }
  const std::string after = measure(store, objects, record);
  collect_garbage(store, plan.source.lineage, CollectionMode::kHalfDead, {}, {});
  const std::string collected = measure(store, objects, record);
  const BackupRecord whole = create_backup(store, plan_for(image.get(), Uuid::generate()), {}, {});
  fmt::print(R"({{"packs": {}, "stored by each": {}, "after": {}, "after gc": {}, "fresh": {}}})"
             "\n",
             record.packs.size(), stored / static_cast<std::uint64_t>(backups), after, collected,
             measure(store, objects, whole));
  return 0;
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  if (argc != 6) {
    fmt::print(stderr, "backup_decay IMAGE STORE BACKUPS WRITES KEEP\n");
    return 1;
  }
  try {
    return convoy::run(argv);
  } catch (const convoy::Error& error) {
    fmt::print(stderr, "backup_decay: {}\n", error.message());
  } catch (const std::exception& error) {
    fmt::print(stderr, "backup_decay: {}\n", error.what());
  }
  return 1;
}
