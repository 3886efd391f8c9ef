// The footers of a backup's packs, read when they are first needed.
#pragma once

#include <cstdint>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "backup/backup_record.h"
#include "backup/layout.h"
#include "backup/pack.h"
#include "objectstore/object_store.h"

namespace convoy {

// Fills `out` from the pack at `offset`. Throws kCorrupt if it ends before, or is gone: that is
// damage to the backup.
void read_pack(ObjectStore& objects, const std::string& key, std::uint64_t offset,
               std::span<std::byte> out);

// Thread-safe. Remembers the footers used last, in bounded memory, and reads none twice at once.
class PackFooters {
 public:
  // `objects` and `record` must outlive this.
  PackFooters(ObjectStore& objects, const BackupRecord& record)
      : objects_(objects), record_(record) {}

  using Slots = std::shared_ptr<const std::vector<PackSlot>>;

  // Throws kCorrupt if the backup lists no such pack, or the footer is damaged; else what
  // ObjectStore::get_range throws.
  Slots slots_of(const PackName& pack);

 private:
  struct Known {
    PackName pack;
    std::shared_future<Slots> slots;
    std::size_t size = 0;  // in slots, and one for itself; 0 while it is being read
  };
  using Position = std::list<Known>::iterator;

  static Slots wait_for(const std::shared_future<Slots>& slots);
  Slots read(const PackName& pack);
  void forget_oldest();

  ObjectStore& objects_;
  const BackupRecord& record_;

  std::mutex mutex_;
  std::list<Known> known_;  // the one used last in front
  std::map<PackName, Position> position_of_;
  std::size_t total_size_ = 0;
};

}  // namespace convoy
