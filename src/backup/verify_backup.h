// Looks whether backups can be restored.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "backup/backup_record.h"
#include "backup/backup_walk.h"
#include "backup/damage_notes.h"
#include "backup/layout.h"
#include "backup/progress.h"
#include "backup/slot_set.h"
#include "backup/store.h"
#include "base/uuid.h"

namespace convoy {

enum class VerifyDepth {
  kQuick,  // the tree, that every pack has the size it should have, and its footer
  kFull,   // and every chunk's digest
};

// Verifies backups of one lineage. What several of them refer to is read once. Used by one thread.
class Verifier {
 public:
  // Lists the lineage's packs. `store` must outlive the verifier. Throws as ObjectStore::list.
  Verifier(const Store& store, const Uuid& lineage, VerifyDepth depth);

  // Everything in the backup that can't be restored, and what stands in packs that have grown, by
  // place in the volume; nothing if there is none, or if the backup is deleted meanwhile. Progress
  // counts bytes of the volume. Throws
  // kCancelled; and kIo if the store can't be read, which says nothing of the backup.
  std::vector<Damage> verify(const BackupRecord& record, const ProgressSink& progress,
                             const std::stop_token& stop);

  // Leaves a note of all damage that was found, so that no backup builds on it any more. Without
  // any, does nothing. Throws as ObjectStore::put.
  void note_damage() const;

 private:
  std::map<PackName, std::string> grown_packs(const BackupRecord& record) const;
  void find_places(PackReader& packs, std::span<const PackReader::Item> chunks,
                   const DamageSink& damaged);
  // The damage to a chunk that was found out elsewhere.
  Damage seen_before(const PackReader::Item& chunk, const BackupRecord& record,
                     std::string_view where) const;
  bool is_there(const BackupRecord& record) const;
  bool is_sound(const Reference& reference) const;
  void remember_sound(const Reference& reference);

  const Store& store_;
  const Uuid lineage_;
  const VerifyDepth depth_;
  std::map<PackName, std::uint64_t> sizes_;  // of the packs that are there

  SlotSet broken_;  // seen in any backup

  mutable std::mutex mutex_;  // of the one below
  SlotSet sound_;
};

}  // namespace convoy
