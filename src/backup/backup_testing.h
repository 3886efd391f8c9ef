// What the tests of backups have in common: a volume to back up, a store in memory, and what must
// always be true of it.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backup/backups.h"
#include "backup/collect_garbage.h"
#include "backup/create_backup.h"
#include "backup/layout.h"
#include "backup/pack_reader.h"
#include "backup/restore_backup.h"
#include "backup/store.h"
#include "base/error.h"
#include "objectstore/memory_store.h"
#include "sys/file.h"
#include "sys/unique_fd.h"

namespace convoy {

using Bytes = std::vector<std::byte>;

// The error that `action` throws.
inline Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::kInternal, "no error was thrown"};
}

// Bytes that can't be compressed; equal for equal seeds.
inline Bytes noise(unsigned seed, std::size_t size) {
  std::mt19937_64 generator(seed);
  Bytes bytes(size);
  for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
    const std::uint64_t next = generator();
    std::memcpy(bytes.data() + at, &next, std::min(sizeof next, size - at));
  }
  return bytes;
}

// A device in memory, zero at first.
class TestDevice {
 public:
  explicit TestDevice(std::uint64_t size) : fd_(::memfd_create("device", MFD_CLOEXEC)) {
    resize(size);
  }

  int fd() const { return fd_.get(); }
  std::uint64_t size() const { return size_; }

  void resize(std::uint64_t size) {
    size_ = size;
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) throw system_error(errno, "memfd");
  }

  void write(std::uint64_t offset, const Bytes& bytes) { write_all_at(fd_.get(), bytes, offset); }
  void zero(std::uint64_t offset, std::size_t size) { write(offset, Bytes(size)); }

  Bytes content() const {
    Bytes content(size_);
    read_exactly_at(fd_.get(), content, 0);
    return content;
  }

 private:
  UniqueFd fd_;
  std::uint64_t size_ = 0;
};

inline Bytes restored(const Store& store, const BackupRecord& record) {
  const TestDevice target(record.info.source.size);
  restore_backup(store, record, target.fd(), {}, {});
  return target.content();
}

// The references of a backup into each pack, found by walking its tree.
class ReferenceCount {
 public:
  ReferenceCount(const Store& store, const BackupRecord& record)
      : footers_(store.objects(), record.info.source.lineage, record.packs),
        packs_(store.objects(), record, footers_) {
    if (record.root) count(*record.root, record.shape().height() - 1);
  }

  const std::map<PackName, std::uint64_t>& counts() const { return counts_; }
  // Those that are referred to.
  const std::map<PackName, std::set<std::uint32_t>>& slots() const { return slots_; }

 private:
  void add(const Reference& reference) {
    ++counts_[reference.pack];
    slots_[reference.pack].insert(reference.slot);
  }

  void count(const Reference& reference, std::uint32_t level) {
    add(reference);
    const PackReader::Item item{.reference = reference, .range = {}};
    TreeNode node;
    packs_.read(
        std::span(&item, 1), kMaxNodeSize,
        [&](std::size_t, std::span<const std::byte> bytes) { node = decode_node(bytes, level); });
    for (const auto& entry : node.entries) {
      if (!entry) continue;
      if (level > 0) {
        count(*entry, level - 1);
      } else {
        add(*entry);
      }
    }
  }

  PackFooters footers_;
  PackReader packs_;
  std::map<PackName, std::uint64_t> counts_;
  std::map<PackName, std::set<std::uint32_t>> slots_;
};

class BackupTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kChunk = kDefaultChunkSize;

  BackupSource source_of(std::uint64_t size) const {
    return {.lineage = lineage_,
            .driver = "devicemapper",
            .volume = {.uuid = lineage_, .name = "db", .created = now(), .filesystem = "ext4"},
            .snapshot = {.uuid = Uuid::generate(), .name = "db-1", .created = now()},
            .size = size};
  }

  BackupPlan plan_of(const TestDevice& device, const std::optional<BackupRecord>& parent,
                     std::vector<SourceRange> ranges) const {
    return {.source = source_of(device.size()),
            .device_fd = device.fd(),
            .parent = parent ? std::optional(parent->info.uuid) : std::nullopt,
            .ranges = std::move(ranges),
            .chunk_size = chunk_size_};
  }

  // Of everything, whether it changed or not.
  BackupRecord back_up_all(const TestDevice& device,
                           const std::optional<BackupRecord>& parent = std::nullopt) {
    return back_up(plan_of(device, parent, {{{0, device.size()}, SourceKind::kRead}}), device);
  }

  BackupRecord back_up(const TestDevice& device, const std::optional<BackupRecord>& parent,
                       std::vector<SourceRange> ranges) {
    return back_up(plan_of(device, parent, std::move(ranges)), device);
  }

  BackupRecord back_up(const BackupPlan& plan, const TestDevice& device) {
    const BackupRecord record = create_backup(store_, plan, {}, {});
    expected_[record.info.uuid] = device.content();
    return record;
  }

  void delete_and_forget(const Uuid& backup) {
    delete_backup(store_, lineage_, backup);
    expected_.erase(backup);
  }

  std::vector<std::string> keys_under(const std::string& prefix) {
    std::vector<std::string> keys;
    objects_.list(prefix, [&](const ObjectInfo& info) { keys.push_back(info.key); });
    return keys;
  }

  std::vector<std::string> pack_keys() {
    return keys_under(prefix_of(lineage_, LineagePart::kPacks));
  }

  // Every backup in the store can be restored, and holds what was backed up if this test made it.
  // Its JSON says the truth about its packs.
  void check_backups() {
    for (const Uuid& backup : backups_of(store_, lineage_)) {
      const BackupRecord record = read_backup(store_, lineage_, backup);
      const Bytes content = restored(store_, record);
      const auto expected = expected_.find(backup);
      if (expected != expected_.end()) {
        EXPECT_TRUE(content == expected->second) << backup.to_string();
      }
      std::map<PackName, std::uint64_t> listed;
      for (const auto& [pack, use] : record.packs) {
        listed[pack] = use.references;
        const auto as_written = objects_.head(pack_key(lineage_, pack));
        if (as_written) {
          EXPECT_EQ(as_written->size, use.size);
        }
      }
      EXPECT_EQ(listed, ReferenceCount(store_, record).counts());
    }
  }

  // No pack is there that no backup refers to, and nothing of those who were at work.
  void check_nothing_is_left_over() {
    std::set<PackName> referred;
    for (const Uuid& backup : backups_of(store_, lineage_)) {
      for (const auto& [pack, use] : read_backup(store_, lineage_, backup).packs)
        referred.insert(pack);
    }
    std::multiset<PackName> there;
    for (const LineagePart part : {LineagePart::kPacks, LineagePart::kRewrittenPacks}) {
      for (const std::string& key : keys_under(prefix_of(lineage_, part)))
        there.insert(parse_pack_key(key)->pack);
    }
    EXPECT_THAT(there, testing::ElementsAreArray(referred));
    EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kLeases)),
                testing::Each(testing::EndsWith(".revoked")));
    EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kPlans)), testing::IsEmpty());
  }

  std::uint32_t chunk_size_ = kChunk;  // of backups without parent
  const Uuid lineage_ = Uuid::generate();
  MemoryStore objects_;
  Store store_ = Store::open_or_create(objects_, std::nullopt);
  std::map<Uuid, Bytes> expected_;  // what was backed up, by backup
};

}  // namespace convoy
