#include "backup/delete_backup.h"

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "backup/backups.h"
#include "backup/damage_notes.h"
#include "backup/layout.h"
#include "backup/lease.h"
#include "backup/progress.h"
#include "backup/removal_plan.h"
#include "base/error.h"

namespace convoy {
namespace {

// What keeps packs of a lineage alive, as found at one moment. A pack that nothing here keeps will
// never be needed again: a writer refers to packs of its own and of backups whose JSON it read
// after it had put its lease.
class Survey {
 public:
  Survey(const Store& store, const Uuid& lineage, const Uuid& deleted)
      : store_(store), lineage_(lineage), deleted_(deleted) {}

  // Looks at leases and then at backups. In this order, a writer that commits and removes its lease
  // in between is found by its backup. `now` is the store's time; leases too old for it don't
  // count.
  void look(Timestamp now);
  // Backups only.
  void look_at_backups(const std::stop_token& stop = {});

  bool keeps(const PackName& pack) const {
    return may_need_any_ || kept_.contains(pack) || writing_.contains(pack.backup);
  }
  bool has_backups() const { return !backups_.empty(); }
  bool has_writers() const { return may_need_any_ || !writing_.empty(); }
  const std::vector<std::string>& dead_leases() const { return dead_leases_; }

 private:
  bool builds_on_what_is_gone(const LeaseRecord& lease) const;

  const Store& store_;
  const Uuid lineage_;
  const Uuid deleted_;
  std::set<Uuid> backups_;  // with a JSON, but for the deleted one
  std::set<Uuid> read_;     // those whose packs are in kept_
  std::set<PackName> kept_;
  std::set<Uuid> writing_;     // under a lease that may be alive
  bool may_need_any_ = false;  // such a lease needs packs that can't be told
  std::vector<std::string> dead_leases_;
};

void Survey::look(Timestamp now) {
  writing_.clear();
  dead_leases_.clear();
  may_need_any_ = false;
  const std::vector<FoundLease> leases = list_leases(store_, lineage_);
  look_at_backups();
  for (const FoundLease& lease : leases) {
    if (!may_be_alive(lease, now, store_.times())) {
      dead_leases_.push_back(lease.key);
    } else if (!lease.record || builds_on_what_is_gone(*lease.record)) {
      may_need_any_ = true;
    } else {
      writing_.insert(lease.record->backup);
    }
  }
}

void Survey::look_at_backups(const std::stop_token& stop) {
  backups_.clear();
  for (const Uuid& backup : backups_of(store_, lineage_)) {
    if (backup == deleted_) continue;
    backups_.insert(backup);
    if (read_.contains(backup)) continue;
    check_stop(stop, "deletion");
    try {
      for (const auto& [pack, use] : read_backup(store_, lineage_, backup).packs)
        kept_.insert(pack);
      read_.insert(backup);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;
      backups_.erase(backup);  // deleted since it was listed
    }
  }
}

// What such a backup refers to can't be read any more, so it may be anything.
bool Survey::builds_on_what_is_gone(const LeaseRecord& lease) const {
  return std::ranges::any_of(lease.builds_on,
                             [&](const Uuid& backup) { return !backups_.contains(backup); });
}

// Deletes one backup.
class Removal {
 public:
  Removal(const Store& store, const Uuid& lineage, const Uuid& backup, const std::stop_token& stop)
      : store_(store),
        objects_(store.objects()),
        lineage_(lineage),
        backup_(backup),
        stop_(stop),
        survey_(store, lineage, backup) {}

  void run();

 private:
  bool read_own_packs();
  Timestamp put_plan_of_garbage();
  Timestamp put_and_tell_time(const RemovalPlan& plan);
  std::vector<PackName> abandoned_packs(Timestamp now);
  void execute(const RemovalPlan& plan);
  void remove_lineage_leftovers();

  const Store& store_;
  ObjectStore& objects_;
  const Uuid lineage_;
  const Uuid backup_;
  const std::stop_token& stop_;
  Survey survey_;
  std::set<PackName> own_packs_;
};

void Removal::run() {
  const bool existed = read_own_packs();
  if (existed || !objects_.list_directories(lineage_prefix(lineage_)).empty()) {
    survey_.look_at_backups(stop_);
    objects_.remove(json_key(lineage_, LineagePart::kBackups, backup_));
    const Timestamp now = put_plan_of_garbage();
    // Also the plans of removers that died. All were written before the second look, which is the
    // one that decides.
    const std::vector<RemovalPlan> plans = list_plans(store_, lineage_);
    survey_.look(now);
    for (const RemovalPlan& plan : plans) execute(plan);
    remove_lineage_leftovers();
  }
  if (!existed) {
    throw Error(ErrorKind::kNotFound, "the store has no backup {} of the volume {}",
                backup_.to_string(), lineage_.to_string());
  }
}

// False if there is no such backup. Of one whose JSON is damaged only the packs that it wrote
// itself are known, by their names.
bool Removal::read_own_packs() {
  try {
    for (const auto& [pack, use] : read_backup(store_, lineage_, backup_).packs) {
      own_packs_.insert(pack);
    }
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return false;
    if (error.kind() != ErrorKind::kCorrupt) throw;
  }
  return true;
}

// Plans the removal of the packs that only this backup needed and of those that nobody committed.
// Returns the store's time.
Timestamp Removal::put_plan_of_garbage() {
  RemovalPlan plan{.key = json_key(lineage_, LineagePart::kPlans, Uuid::generate()), .packs = {}};
  std::ranges::copy_if(own_packs_, std::back_inserter(plan.packs),
                       [&](const PackName& pack) { return !survey_.keeps(pack); });
  const Timestamp now = put_and_tell_time(plan);
  survey_.look(now);
  const std::vector<PackName> abandoned = abandoned_packs(now);
  if (abandoned.empty()) return now;
  plan.packs.insert(plan.packs.end(), abandoned.begin(), abandoned.end());
  return put_and_tell_time(plan);
}

Timestamp Removal::put_and_tell_time(const RemovalPlan& plan) {
  while (true) {
    put_plan(store_, plan);
    const auto info = objects_.head(plan.key);
    if (info) return info->modified;
    // Another remover has just carried out the plan: it is put again, for the time.
  }
}

// Packs that no backup refers to, and whose writer has had time enough to commit. When there is no
// backup left, writers without a lease get no time: they can't commit any more.
std::vector<PackName> Removal::abandoned_packs(Timestamp now) {
  const auto grace =
      survey_.has_backups() ? store_.times().garbage_grace : std::chrono::milliseconds::zero();
  std::vector<PackName> packs;
  objects_.list(prefix_of(lineage_, LineagePart::kPacks), [&](const ObjectInfo& info) {
    const auto pack = parse_pack_name(info.key.substr(info.key.rfind('/') + 1));
    if (!pack || survey_.keeps(*pack) || own_packs_.contains(*pack)) return;
    if (pack->backup == backup_ || now - info.modified >= grace) packs.push_back(*pack);
  });
  return packs;
}

void Removal::execute(const RemovalPlan& plan) {
  for (const PackName& pack : plan.packs) {
    if (stop_.stop_requested()) {
      throw Error(
          ErrorKind::kCancelled,
          "the backup is deleted, but what it took is not free yet: the removal of its "
          "packs was cancelled; the next deletion of a backup of this volume goes on with it");
    }
    if (!survey_.keeps(pack)) objects_.remove(pack_key(lineage_, pack));
  }
  // What was kept is garbage if its writer fails, and found as such later.
  objects_.remove(plan.key);
}

void Removal::remove_lineage_leftovers() {
  for (const std::string& lease : survey_.dead_leases()) objects_.remove(lease);
  remove_damage_notes(store_, lineage_, [&](const PackName& pack) { return survey_.keeps(pack); });
  if (!survey_.has_backups() && !survey_.has_writers()) objects_.remove(volume_key(lineage_));
}

}  // namespace

void delete_backup(const Store& store, const Uuid& lineage, const Uuid& backup,
                   const std::stop_token& stop) {
  Removal(store, lineage, backup, stop).run();
}

}  // namespace convoy
