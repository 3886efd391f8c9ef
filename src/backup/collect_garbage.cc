#include "backup/collect_garbage.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "backup/backup_walk.h"
#include "backup/backups.h"
#include "backup/damage_notes.h"
#include "backup/late_commits.h"
#include "backup/lease.h"
#include "backup/lineage_survey.h"
#include "backup/ordered_workers.h"
#include "backup/pack_footers.h"
#include "backup/pack_rewriting.h"
#include "backup/pack_set.h"
#include "backup/removal_plan.h"
#include "backup/slot_set.h"
#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// How soon a request to stop is heeded.
constexpr std::chrono::milliseconds kStopPoll{20};

// A request to S3 removes a thousand objects. Fewer, so that progress shows on a slow disk.
constexpr std::size_t kRemovedAtOnce = 500;

constexpr std::string_view kDeletedButNotFree =
    "the backup is deleted, but what it took is not free yet: ";

// What is too much for one plan is left to the next collection.
void add_to_plan(PackSet& planned, const PackName& pack) {
  if (planned.ranges().size() < kMaxRangesInPlan) planned.insert(pack);
}

// One collection in one lineage, with or without the deletion of a backup.
class Collector {
 public:
  Collector(const Store& store, const Uuid& lineage, CollectionMode mode,
            const std::optional<Uuid>& deleted, const ProgressSink& progress,
            const std::stop_token& stop)
      : store_(store),
        objects_(store.objects()),
        lineage_(lineage),
        mode_(mode),
        deleted_(deleted),
        progress_(progress),
        stop_(stop),
        survey_(store, lineage, work(), deleted,
                [this](const BackupRecord& record) {
                  if (mode_ != CollectionMode::kWhatNobodyRefersTo) find_live_slots(record);
                }),
        footers_(objects_, lineage, survey_.packs()) {}

  Collection run();
  // False if there was no such backup.
  bool run_deletion();

 private:
  // All objects of one pack: at most one of them as it was written, and then by time.
  struct Objects {
    std::vector<ObjectInfo> of_pack;

    std::uint64_t size() const {
      std::uint64_t size = 0;
      for (const ObjectInfo& object : of_pack) size += object.size;
      return size;
    }
    Timestamp newest() const {
      return std::ranges::max_element(of_pack, {}, &ObjectInfo::modified)->modified;
    }
  };

  void collect();
  bool read_own_packs();
  void remove_record();
  void find_live_slots(const BackupRecord& record);
  Timestamp put_plan_for_time();
  void revoke_dead_writers(Timestamp now);
  void put_plan_and_look();
  std::optional<std::chrono::milliseconds> time_until_seen(LateCommits& late);
  void wait(std::chrono::milliseconds time) const;
  void list_objects();
  void plan_removals(Timestamp now);
  void plan_rewriting();
  bool is_live(const PackName& pack, std::uint32_t slot) const {
    return live_.contains({.pack = pack, .slot = slot, .digest = {}});
  }

  std::vector<RemovalPlan> plans_of_others();
  void take_over(const std::vector<RemovalPlan>& others);
  void end_plans(const std::vector<RemovalPlan>& plans, Timestamp now);
  void execute();
  void remove_packs(const std::vector<PackName>& packs);
  void remove_superseded(const PackName& pack);
  void rewrite();
  void remove_lineage_leftovers(Timestamp now);
  void report_done(const CollectedPack& pack);
  std::string_view work() const { return deleted_ ? "deletion" : "collection"; }
  void check_stopped() const;

  const Store& store_;
  ObjectStore& objects_;
  const Uuid lineage_;
  const CollectionMode mode_;
  const std::optional<Uuid> deleted_;
  const ProgressSink& progress_;
  const std::stop_token& stop_;

  LineageSurvey survey_;
  PackFooters footers_;
  PackSet own_packs_;  // of the deleted backup
  bool deletion_is_done_ = false;
  RemovalPlan plan_;
  std::map<PackName, Objects> objects_of_;
  PackSet gone_;  // as they were written, removed by us
  SlotSet live_;  // what backups refer to
  bool live_is_incomplete_ = false;
  Progress progress_so_far_;
  Collection result_;
};

Collection Collector::run() {
  survey_.look_at_backups(stop_);
  collect();
  return std::move(result_);
}

bool Collector::run_deletion() {
  const bool existed = read_own_packs();
  if (existed || !objects_.list_directories(lineage_prefix(lineage_)).empty()) {
    survey_.look_at_backups(stop_);
    remove_record();
    deletion_is_done_ = existed;
    try {
      collect();
    } catch (const Error& error) {
      // A request to the store that was ended tells nothing of the backup.
      if (error.kind() == ErrorKind::kCancelled) check_stopped();
      throw;
    }
  }
  return existed;
}

void Collector::remove_record() {
  try {
    objects_.remove(backup_key(lineage_, *deleted_));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCancelled) throw;
    throw Error(ErrorKind::kCancelled,
                "the deletion was cancelled as the backup was removed: it may be gone, as a list "
                "of the backups will tell");
  }
}

// Of a backup whose record is damaged only the packs that it wrote itself are known, by their
// names.
bool Collector::read_own_packs() {
  try {
    for (const auto& [pack, use] : read_backup(store_, lineage_, *deleted_).packs)
      own_packs_.insert(pack);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return false;
    if (error.kind() != ErrorKind::kCorrupt) throw;
  }
  return true;
}

void Collector::collect() {
  const Timestamp now = put_plan_for_time();
  if (mode_ == CollectionMode::kPlanOnly) {
    objects_.remove(plan_.key);
    survey_.look(stop_, now);
  } else {
    revoke_dead_writers(now);
    for (const Uuid& backup : void_backups_of(store_, lineage_))
      objects_.remove(backup_key(lineage_, backup));
  }
  // Listed before the objects: what they name and is not there then is gone for good.
  const std::vector<RemovalPlan> others = plans_of_others();
  list_objects();
  plan_removals(now);
  plan_rewriting();
  if (mode_ == CollectionMode::kPlanOnly) return;

  // What is removed stands in a plan of our own, which is there from before the look that decides
  // until it is done, since another's may be ended by its owner at any time.
  take_over(others);
  if (plan_.packs.empty() && plan_.rewrites.empty())
    survey_.look(stop_);
  else
    put_plan_and_look();
  execute();
  rewrite();
  objects_.remove(plan_.key);
  end_plans(others, now);
  remove_lineage_leftovers(now);
}

// Returns the store's time, which only an object that was put just now tells.
Timestamp Collector::put_plan_for_time() {
  plan_.key = json_key(lineage_, LineagePart::kPlans, Uuid::generate());
  plan_.known = survey_.read_backups();
  own_packs_.for_each([&](const PackName& pack) {
    if (!survey_.keeps(pack)) add_to_plan(plan_.packs, pack);
  });
  while (true) {
    put_plan(store_, plan_);
    if (const auto info = objects_.head(plan_.key)) return info->modified;
    // Another remover has just carried it out.
  }
}

// Puts the plan and looks, until no backup can come to light any more that the look has not found.
void Collector::put_plan_and_look() {
  // Under another name than the plan before: what a plan names never changes, or another remover,
  // who has read it before, could take it for done.
  const std::string before =
      std::exchange(plan_.key, json_key(lineage_, LineagePart::kPlans, Uuid::generate()));
  plan_.known = survey_.read_backups();
  put_plan(store_, plan_);
  objects_.remove(before);
  survey_.look(stop_);
  LateCommits late(store_, lineage_);
  while (const auto time = time_until_seen(late)) {
    wait(*time);
    put_plan(store_, plan_);
    survey_.look(stop_);
  }
}

std::optional<std::chrono::milliseconds> Collector::time_until_seen(LateCommits& late) {
  const auto plan = objects_.head(plan_.key);
  try {
    return late.time_left(plan ? std::optional(plan->modified) : std::nullopt);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnavailable || !deletion_is_done_) throw;
    throw Error(error.kind(), "{}{}", kDeletedButNotFree, error.message());
  }
}

void Collector::wait(std::chrono::milliseconds time) const {
  if (time > std::chrono::seconds(1))
    spdlog::info(
        "a writer's lease was revoked: nothing is removed for {} seconds, until it is "
        "certain that its backup was not completed",
        std::chrono::ceil<std::chrono::seconds>(time).count());
  const auto until = std::chrono::steady_clock::now() + time;
  do {
    check_stopped();
    std::this_thread::sleep_for(kStopPoll);
  } while (std::chrono::steady_clock::now() < until);
}

// So that nothing has to be kept for them from now on.
void Collector::revoke_dead_writers(Timestamp now) {
  for (const FoundLease& lease : list_leases(store_, lineage_)) {
    if (is_dead(lease, now, store_.times())) revoke(store_, lineage_, lease.backup);
  }
}

void Collector::find_live_slots(const BackupRecord& record) {
  NodeReader nodes(objects_, record, footers_);
  try {
    BackupWalk({.record = record,
                .nodes = nodes,
                .damaged = {},
                .work = work(),
                .stop = stop_,
                .known =
                    [&](const Reference& node) {
                      if (live_.contains(node)) return true;
                      live_.insert(node);
                      return false;
                    }})
        .run([&](std::span<const PackReader::Item> chunks) {
          for (const PackReader::Item& chunk : chunks) live_.insert(chunk.reference);
        });
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) throw;
    live_is_incomplete_ = true;
    result_.not_rewritten = fmt::format("a backup is damaged: {}", error.message());
  }
}

void Collector::list_objects() {
  for (const LineagePart part : {LineagePart::kPacks, LineagePart::kRewrittenPacks}) {
    objects_.list(prefix_of(lineage_, part), [&](const ObjectInfo& info) {
      if (const auto object = parse_pack_key(info.key))
        objects_of_[object->pack].of_pack.push_back(info);
    });
  }
}

// Packs that no backup refers to, and whose writer has had time enough to commit, or the next one
// to use them. When there is no backup left, nobody gets time.
void Collector::plan_removals(Timestamp now) {
  const auto grace = survey_.has_backups() || !deleted_ ? store_.times().garbage_grace
                                                        : std::chrono::milliseconds::zero();
  for (const auto& [pack, objects] : objects_of_) {
    if (survey_.keeps(pack)) continue;
    const bool is_own = own_packs_.contains(pack) || pack.backup == deleted_;
    if (!is_own && now - objects.newest() < grace) continue;
    add_to_plan(plan_.packs, pack);
    if (mode_ == CollectionMode::kPlanOnly)
      result_.packs.push_back(
          {CollectedPack::Action::kRemoved, pack, objects.size(), objects.size()});
    progress_so_far_.bytes_total += objects.size();
  }
}

void Collector::plan_rewriting() {
  if (mode_ == CollectionMode::kWhatNobodyRefersTo || !result_.not_rewritten.empty()) return;
  struct Piece {
    PackName pack;
    std::uint64_t size = 0;
    LiveShare share = {};
    std::optional<Error> damage = std::nullopt;
  };
  // Most of it is waiting for the store.
  OrderedWorkers<Piece> workers(
      worker_count(), worker_count() * std::size_t{2},
      [&](Piece& piece, unsigned) {
        try {
          piece.share = live_share(*footers_.footer_of(piece.pack),
                                   [&](std::uint32_t slot) { return is_live(piece.pack, slot); });
        } catch (const Error& error) {
          if (error.kind() != ErrorKind::kCorrupt) throw;
          piece.damage = error;
        }
      },
      [&](const Piece& piece) {
        const auto& [pack, size, share, damage] = piece;
        if (damage)
          result_.not_rewritten =
              fmt::format("{}: {}", pack_key(lineage_, pack), damage->message());
        if (damage || share.live * 100 >= share.all * kMinLiveShare) return;
        add_to_plan(plan_.rewrites, pack);
        progress_so_far_.bytes_total += size;
        if (mode_ == CollectionMode::kPlanOnly)
          result_.packs.push_back(
              {CollectedPack::Action::kRewritten, pack, size, share.all - share.live});
      });
  for (const auto& [pack, use] : survey_.packs()) {
    check_stopped();
    const auto objects = objects_of_.find(pack);
    if (objects == objects_of_.end() || survey_.is_being_written(pack.backup)) continue;
    workers.add({.pack = pack, .size = objects->second.size()});
  }
  workers.wait();
}

std::vector<RemovalPlan> Collector::plans_of_others() {
  std::vector<RemovalPlan> plans = list_plans(store_, lineage_);
  std::erase_if(plans, [&](const RemovalPlan& plan) { return plan.key == plan_.key; });
  return plans;
}

// Makes what they name, of what is there, ours: whoever put them may have died.
void Collector::take_over(const std::vector<RemovalPlan>& others) {
  for (const auto& [pack, objects] : objects_of_) {
    if (!survey_.keeps(pack) && std::ranges::any_of(others, [&](const RemovalPlan& plan) {
          return plan.packs.contains(pack);
        }))
      add_to_plan(plan_.packs, pack);
  }
}

// Removes those that nobody can act on any more: what they name is gone, as it was written. Others
// stay for as long as revocations do, since their owners may only be slow.
void Collector::end_plans(const std::vector<RemovalPlan>& plans, Timestamp now) {
  const auto can_be_acted_on = [&](const RemovalPlan& plan) {
    return std::ranges::any_of(objects_of_, [&](const auto& entry) {
      const auto& [pack, objects] = entry;
      return plan.names(pack) && !gone_.contains(pack) &&
             objects.of_pack.front().key == pack_key(lineage_, pack);
    });
  };
  for (const RemovalPlan& plan : plans) {
    if (now - plan.put >= store_.times().revocation_age || !can_be_acted_on(plan))
      objects_.remove(plan.key);
  }
}

void Collector::execute() {
  std::vector<PackName> packs;
  for (const auto& [pack, objects] : objects_of_) {
    // What is kept is garbage if its writer fails, and found as such later.
    if (plan_.packs.contains(pack) && !survey_.keeps(pack)) packs.push_back(pack);
    if (packs.size() == kRemovedAtOnce) remove_packs(std::exchange(packs, {}));
  }
  remove_packs(packs);
}

void Collector::remove_packs(const std::vector<PackName>& packs) {
  check_stopped();
  std::vector<std::string> keys;
  for (const PackName& pack : packs) {
    for (const ObjectInfo& object : objects_of_.at(pack).of_pack) keys.push_back(object.key);
  }
  objects_.remove_all(keys);
  for (const PackName& pack : packs) {
    gone_.insert(pack);
    const std::uint64_t size = objects_of_.at(pack).size();
    report_done({CollectedPack::Action::kRemoved, pack, size, size});
  }
}

// Of a pack that was rewritten, only the newest object counts. A remover that died may have left
// the ones before.
void Collector::remove_superseded(const PackName& pack) {
  const std::vector<ObjectInfo>& objects = objects_of_.at(pack).of_pack;
  for (std::size_t i = 0; i + 1 < objects.size(); ++i) objects_.remove(objects[i].key);
  gone_.insert(pack);
}

void Collector::rewrite() {
  if (survey_.knows_all_needs()) {
    for (const auto& [pack, objects] : objects_of_) {
      if (objects.of_pack.size() > 1 && survey_.keeps(pack)) remove_superseded(pack);
    }
  }
  if (plan_.rewrites.empty() || live_is_incomplete_) return;
  if (!survey_.knows_all_needs()) {
    result_.not_rewritten =
        "a backup is being made on one that was deleted, or on what an interrupted one left";
    return;
  }
  for (const auto& [pack, objects] : objects_of_) {
    if (!plan_.rewrites.contains(pack) || survey_.is_being_written(pack.backup)) continue;
    check_stopped();
    try {
      const PackFooters::Footer footer = footers_.footer_of(pack);
      const std::uint64_t size =
          rewrite_pack(objects_, lineage_, pack, *footer,
                       [&](std::uint32_t slot) { return is_live(pack, slot); });
      std::uint64_t old_size = 0;
      for (const ObjectInfo& object : objects.of_pack) {
        objects_.remove(object.key);
        old_size = object.size;
      }
      gone_.insert(pack);
      report_done(
          {CollectedPack::Action::kRewritten, pack, old_size, old_size - std::min(old_size, size)});
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) continue;  // another remover was faster
      if (error.kind() != ErrorKind::kCorrupt) throw;
      result_.not_rewritten = fmt::format("{}: {}", pack_key(lineage_, pack), error.message());
    }
  }
}

void Collector::remove_lineage_leftovers(Timestamp now) {
  remove_damage_notes(store_, lineage_, [&](const PackName& pack) { return survey_.keeps(pack); });
  for (const auto& [backup, revoked] : list_leases_and_revocations(store_, lineage_).revocations) {
    if (now - revoked < store_.times().revocation_age) continue;
    // A writer that slept through it may have put its lease once more.
    objects_.remove(json_key(lineage_, LineagePart::kLeases, backup));
    objects_.remove(revocation_key(lineage_, backup));
  }
  if (!survey_.has_backups() && !survey_.has_writers()) objects_.remove(volume_key(lineage_));
}

void Collector::report_done(const CollectedPack& pack) {
  result_.packs.push_back(pack);
  progress_so_far_.bytes_done += pack.size;
  if (progress_) progress_(progress_so_far_);
}

void Collector::check_stopped() const {
  if (!stop_.stop_requested()) return;
  if (!deletion_is_done_) check_stop(stop_, work());
  throw Error(ErrorKind::kCancelled,
              "{}the removal of its packs was cancelled; the next deletion of a backup of this "
              "volume goes on with it",
              kDeletedButNotFree);
}

}  // namespace

Collection collect_garbage(const Store& store, const Uuid& lineage, CollectionMode mode,
                           const ProgressSink& progress, const std::stop_token& stop) {
  return Collector(store, lineage, mode, std::nullopt, progress, stop).run();
}

void delete_backup(const Store& store, const Uuid& lineage, const Uuid& backup,
                   const ProgressSink& progress, const std::stop_token& stop) {
  Collector collector(store, lineage, CollectionMode::kWhatNobodyRefersTo, backup, progress, stop);
  if (!collector.run_deletion()) {
    throw Error(ErrorKind::kNotFound, "the store has no backup {} of the volume {}",
                backup.to_string(), lineage.to_string());
  }
}

}  // namespace convoy
