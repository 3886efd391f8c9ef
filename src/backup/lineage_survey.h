// What keeps the packs of a lineage: the backups that are there, and those that are being written.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <stop_token>
#include <string_view>
#include <utility>

#include "backup/backup_record.h"
#include "backup/layout.h"
#include "backup/store.h"
#include "base/uuid.h"

namespace convoy {

// Looks several times, and counts whatever was there at any of them. A pack that is not kept after
// look() will never be needed again, if it was there before the first look: a writer refers to
// packs of its own, of backups whose records it read after it had put its lease, and of those that
// its lease names besides. One whose lease was put after the look has seen the plan that was put
// before it, and refers to nothing there but what backups need that the plan names as known.
//
// Used by one thread.
class LineageSurvey {
 public:
  // Takes `without` for deleted. Calls `on_backup` once with each backup; it may be empty. `work`
  // is what is cancelled when a stop is requested, such as "deletion".
  using OnBackup = std::function<void(const BackupRecord& record)>;
  LineageSurvey(const Store& store, const Uuid& lineage, std::string_view work,
                const std::optional<Uuid>& without, OnBackup on_backup)
      : store_(store),
        lineage_(lineage),
        work_(work),
        without_(without),
        on_backup_(std::move(on_backup)) {}

  // Throws kCorrupt or kUnsupported if a backup's record can't be read, since nobody knows what it
  // needs; kCancelled; and what `on_backup` throws.
  void look_at_backups(const std::stop_token& stop);
  // At the leases, and then at the backups. In this order, a writer that commits and removes its
  // lease in between is found by its backup.
  // Leases that are dead at `dead_at` don't count, though they are not revoked: for those who only
  // want to know.
  void look(const std::stop_token& stop, const std::optional<Timestamp>& dead_at = std::nullopt);

  bool keeps(const PackName& pack) const {
    return may_need_any_ || packs_.contains(pack) || is_being_written(pack.backup);
  }
  // Whether all that anybody needs of the packs of complete backups is what those refer to.
  bool knows_all_needs() const { return !may_need_any_; }
  // The backups whose records were read, at any look.
  const std::set<Uuid>& read_backups() const { return read_; }
  bool is_being_written(const Uuid& backup) const { return writing_.contains(backup); }
  bool has_backups() const { return !backups_.empty(); }
  bool has_writers() const { return may_need_any_ || !writing_.empty(); }

  // All that backups refer to; only the sizes mean something.
  const PackUses& packs() const { return packs_; }

 private:
  const Store& store_;
  const Uuid lineage_;
  const std::string_view work_;
  const std::optional<Uuid> without_;
  const OnBackup on_backup_;

  std::set<Uuid> backups_;  // at the last look
  std::set<Uuid> read_;     // at any look
  PackUses packs_;
  std::set<Uuid> writing_;
  bool may_need_any_ = false;  // a writer needs packs that can't be told
};

}  // namespace convoy
