#include "backup/create_backup.h"

#include <bit>
#include <functional>
#include <set>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/backup_walk.h"
#include "backup/backups.h"
#include "backup/chunk_writer.h"
#include "backup/collect_garbage.h"
#include "backup/compaction.h"
#include "backup/damage_notes.h"
#include "backup/device_io.h"
#include "backup/json_fields.h"
#include "backup/known_chunks.h"
#include "backup/lease.h"
#include "backup/leftover_chunks.h"
#include "backup/node_reader.h"
#include "backup/pack_ledger.h"
#include "backup/pack_writer.h"
#include "backup/removal_plan.h"
#include "backup/tree_update.h"
#include "backup/zstd_text.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/name.h"
#include "base/time.h"

namespace convoy {
namespace {

// Packs of data on their way to the store. A server that takes its time for each (Ceph on a slow
// disk: a second) is at its rate with 8, and at half of it with 4; each takes 16 MiB of memory.
constexpr unsigned kDataPutsAtOnce = 8;

void check_plan(const BackupPlan& plan) {
  const BackupSource& source = plan.source;
  check_name("volume", source.volume.name);
  check_name("snapshot", source.snapshot.name);
  if (!source.driver.empty()) check_name("driver", source.driver);
  if (!source.volume.filesystem.empty()) check_name("file system", source.volume.filesystem);
  if (source.size == 0 || source.size % kSectorBytes != 0 || source.size > kMaxVolumeSize) {
    throw Error(ErrorKind::kInvalidArgument, "a volume of {} bytes can't be backed up",
                source.size);
  }
  if (plan.chunk_size < kMinChunkSize || plan.chunk_size > kMaxChunkSize ||
      !std::has_single_bit(plan.chunk_size)) {
    throw Error(ErrorKind::kInvalidArgument, "chunks can't have {} bytes", plan.chunk_size);
  }
  if (device_size(plan.device_fd) < source.size) {
    throw Error(ErrorKind::kInvalidArgument, "the volume's device is shorter than its {} bytes",
                source.size);
  }
}

// Does something that may fail without consequence for the caller.
template <typename Action>
void attempt(const char* what, Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    spdlog::warn("can't {}: {}", what, error.message());
  }
}

// One backup in the making.
class BackupRun {
 public:
  // Puts the lease.
  BackupRun(const Store& store, const BackupPlan& plan, const ProgressSink& progress,
            std::stop_token stop)
      : store_(store),
        plan_(plan),
        lineage_(plan.source.lineage),
        progress_(progress),
        stop_(std::move(stop)),
        lease_(store, lineage_, {.backup = uuid_, .builds_on = with_parent({})}),
        data_packs_(store.objects(), lineage_, {PackKind::kData, uuid_, 0}, kDataPutsAtOnce),
        tree_packs_(store.objects(), lineage_, {PackKind::kTree, uuid_, 0}, 1) {}

  BackupRecord run();

 private:
  std::vector<Uuid> with_parent(std::vector<Uuid> backups) const {
    if (plan_.parent) backups.push_back(*plan_.parent);
    return backups;
  }

  void read_store();
  void read_parent(const LeaseList& leases);
  void find_usable_packs(LeaseList leases);
  void avoid_damage();
  // Whether parts of the parent are read from the volume all the same.
  bool repairs() const { return parent_ && (plan_.repair || !avoided_.empty()); }
  BackupRecord write_packs_under_lease();
  BackupRecord write_packs();
  // Whether what it leads to is to be stored anew. Trees are written anew as a whole when anything
  // is.
  bool is_unwanted(const Reference& reference) const {
    return damage_.contains(reference) ||
           (reference.pack.kind == PackKind::kData && avoided_.contains(reference.pack));
  }
  std::uint64_t chunks_read_again() const;
  KnownChunks known_chunks(std::uint64_t chunks_to_read);
  ChunkRanges plan_chunks(const TreeShape& shape) const;
  std::optional<Reference> write_tree(const TreeShape& shape, const ChunkRanges& ranges,
                                      ChunkWriter& chunks, PackLedger& ledger);
  void commit(const BackupRecord& record);
  void put_volume_json();
  void clean_up(bool is_full);

  const Store& store_;
  const BackupPlan& plan_;
  const Uuid lineage_;
  const ProgressSink& progress_;
  const std::stop_token stop_;
  const Uuid uuid_ = Uuid::generate();
  const Timestamp created_ = now();
  Lease lease_;
  std::optional<BackupRecord> parent_;
  PackUses usable_;             // packs of interrupted backups
  SlotSet damage_;              // that notes tell of, in the parent's packs
  std::set<PackName> avoided_;  // packs of the parent that this backup does not refer to
  PackWriter data_packs_;
  PackWriter tree_packs_;
  bool may_be_committed_ = false;
};

BackupRecord BackupRun::run() {
  try {
    read_store();
    const BackupRecord record = write_packs_under_lease();
    commit(record);
    attempt("remove the lease of a backup", [&] { lease_.release(Lease::Leaves::kNothing); });
    return record;
  } catch (const Error& error) {
    clean_up(error.kind() == ErrorKind::kNoSpace);
    if (error.kind() == ErrorKind::kCancelled) check_stop(stop_, "backup");
    throw;
  } catch (...) {
    clean_up(false);
    throw;
  }
}

// After the lease was put: a remover that has not seen the lease has removed the parent's record
// before, so it is missed here.
void BackupRun::read_store() {
  const LeaseList leases = lease_.look();
  if (plan_.parent) read_parent(leases);
  find_usable_packs(leases);
  if (!parent_ && usable_.empty()) return;
  avoid_damage();
}

// Nothing of a pack is used in which damage was found: a backup that refers to its other parts
// would have all that are built on it look for the damage in their trees, too.
void BackupRun::avoid_damage() {
  damage_ = list_damage(store_, lineage_);
  damage_.erase_packs([&](const PackName& pack) {
    usable_.erase(pack);
    return !parent_ || !parent_->packs.contains(pack);
  });
  damage_.for_each([&](const PackName& pack, std::uint32_t) {
    if (pack.kind == PackKind::kData)
      avoided_.insert(pack);
    else if (!plan_.repair)
      throw Error(ErrorKind::kCorrupt, "{}: a verification found it damaged",
                  pack_key(lineage_, pack));
  });
}

// A remover that has not seen the lease, nor the parent, which was deleted since, may have planned
// to remove what the parent refers to: its plan is there, or it was done before the record is read.
void BackupRun::read_parent(const LeaseList& leases) {
  const Uuid& parent = *plan_.parent;
  const std::vector<RemovalPlan> plans = list_plans(store_, lineage_);
  with_context("can't build on the parent backup", [&] {
    try {
      parent_ = leases.revocations.contains(parent) ? read_backup(store_, lineage_, parent)
                                                    : read_listed_backup(store_, lineage_, parent);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
      spdlog::warn("nothing is built on a damaged backup: {}", error.message());
      throw Error(ErrorKind::kNotFound, "{}", error.message());  // it is as good as gone
    }
  });
  avoided_ = scattered_packs(parent_->packs, parent_->chunk_size);
  for (const RemovalPlan& plan : plans) {
    if (plan.known.contains(parent)) continue;
    for (const auto& [pack, use] : parent_->packs)
      if (plan.names(pack)) avoided_.insert(pack);
  }
}

// Interrupted backups of which nothing can be used are not named: a remover does not know what is
// needed of them, and would have to keep everything until this backup ends.
void BackupRun::find_usable_packs(LeaseList leases) {
  leases.leases.erase(uuid_);
  const std::vector<Uuid> interrupted =
      interrupted_backups(store_, lineage_, leases, parent_ ? parent_->packs : PackUses());
  if (interrupted.empty()) return;
  lease_.build_on(with_parent(interrupted));
  usable_ = usable_packs(store_, lineage_, interrupted);
  std::erase_if(usable_, [&](const auto& entry) { return avoided_.contains(entry.first); });
  std::set<Uuid> useful;
  for (const auto& [pack, use] : usable_) useful.insert(pack.backup);
  if (useful.size() < interrupted.size())
    lease_.build_on(with_parent({useful.begin(), useful.end()}));
}

// Without its lease a writer may find the parent's packs removed. That is no damage to the store.
BackupRecord BackupRun::write_packs_under_lease() {
  try {
    return write_packs();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCorrupt) lease_.look();
    throw;
  }
}

BackupRecord BackupRun::write_packs() {
  const TreeShape shape(plan_.source.size, parent_ ? parent_->chunk_size : plan_.chunk_size);
  const ChunkRanges ranges = plan_chunks(shape);
  const std::uint64_t bytes_to_read =
      ranges.bytes_to_read(shape) + chunks_read_again() * shape.chunk_size();
  std::optional<LeftoverChunks> leftovers;
  if (!usable_.empty()) leftovers.emplace(store_.objects(), lineage_, usable_);
  ChunkWriter chunks(
      {.device_fd = plan_.device_fd,
       .shape = shape,
       .compression = plan_.compression,
       .packs = data_packs_,
       .leftovers = leftovers ? &*leftovers : nullptr,
       .before_piece =
           [&](const BackupStatistics& statistics) {
             check_stop(stop_, "backup");
             lease_.check();
             const std::uint64_t read = statistics.bytes_read;
             if (progress_) progress_({read, std::max(read, bytes_to_read)});
           }},
      known_chunks(!plan_.repair ? bytes_to_read / shape.chunk_size()
                                 : kKnownChunks));  // what is lost shows on the way only
  PackLedger ledger(parent_ && !repairs() ? parent_->packs : PackUses());
  const std::optional<Reference> root = write_tree(shape, ranges, chunks, ledger);
  data_packs_.finish();
  tree_packs_.finish();

  if (parent_) ledger.set_sizes_of(parent_->packs);  // one may have gone and come again
  ledger.set_sizes_of(usable_);
  BackupStatistics statistics = chunks.statistics();
  for (const PackWriter* const writer : {&data_packs_, &tree_packs_}) {
    for (const auto& [pack, size] : writer->written()) {
      ledger.set_size(pack, size);
      statistics.bytes_stored += size;
    }
  }
  return {.info = {.uuid = uuid_,
                   .created = created_,
                   .source = plan_.source,
                   .parent = plan_.parent,
                   .statistics = statistics},
          .chunk_size = shape.chunk_size(),
          .root = root,
          .packs = ledger.uses()};
}

// Besides those of the plan: what the parent has in packs that are not referred to.
std::uint64_t BackupRun::chunks_read_again() const {
  std::uint64_t chunks = 0;
  for (const PackName& pack : avoided_) {
    const auto use = parent_->packs.find(pack);
    if (use != parent_->packs.end() && pack.kind == PackKind::kData)
      chunks += use->second.references;
  }
  return chunks;
}

// With those of the parent, wherever they stand, if there are few beside what is to be read: then
// it costs little to find out whether files were moved or copied.
KnownChunks BackupRun::known_chunks(std::uint64_t chunks_to_read) {
  std::uint64_t of_parent = 0;
  if (parent_) {
    for (const auto& [pack, use] : parent_->packs)
      if (pack.kind == PackKind::kData) of_parent += use.references;
  }
  if (of_parent >
      std::min<std::uint64_t>(kKnownChunks / 2, chunks_to_read * kMaxParentChunksPerRead))
    of_parent = 0;
  KnownChunks known(chunks_to_read + 2 * of_parent);
  if (of_parent == 0) return known;
  PackFooters footers(store_.objects(), lineage_, parent_->packs);
  NodeReader nodes(store_.objects(), *parent_, footers);
  BackupWalk({.record = *parent_,
              .nodes = nodes,
              .damaged = [](const Damage&) {},  // the update of the tree comes upon it
              .work = "backup",
              .stop = stop_})
      .run([&](std::span<const PackReader::Item> chunks) {
        for (const auto& [reference, range] : chunks)
          if (!is_unwanted(reference) && known.find(reference.digest) == nullptr)
            known.remember(reference);
      });
  return known;
}

ChunkRanges BackupRun::plan_chunks(const TreeShape& shape) const {
  ChunkRanges ranges(plan_.ranges, shape);
  if (parent_ && parent_->info.source.size != shape.size()) {
    // The chunk in which the smaller of the two volumes ends may be a shorter one there, so it is
    // read. This also leads the walk to every node that reaches beyond the end of a volume that has
    // shrunk.
    ranges.include((std::min(parent_->info.source.size, shape.size()) - 1) / shape.chunk_size());
  }
  return ranges;
}

std::optional<Reference> BackupRun::write_tree(const TreeShape& shape, const ChunkRanges& ranges,
                                               ChunkWriter& chunks, PackLedger& ledger) {
  std::optional<PackFooters> footers;
  std::optional<NodeReader> parent_nodes;
  if (parent_) {
    footers.emplace(store_.objects(), lineage_, parent_->packs);
    parent_nodes.emplace(store_.objects(), *parent_, *footers);
  }

  std::function<bool(const Reference&)> unwanted;
  if (repairs()) {
    unwanted = [this](const Reference& reference) { return is_unwanted(reference); };
  }
  TreeUpdate update(
      {.shape = shape,
       .ranges = ranges,
       .parent_nodes = parent_nodes ? &*parent_nodes : nullptr,
       .tree_packs = tree_packs_,
       .ledger = ledger,
       .update_leaves = [&](std::span<LeafUpdate> leaves) { chunks.update_leaves(leaves); },
       .reuse = repairs() || is_tree_scattered(ledger.uses()) ? NodeReuse::kWriteAll
                                                              : NodeReuse::kKeepNodes,
       .is_unwanted = unwanted,
       .stop = stop_});
  return parent_ ? update.run(parent_->root, parent_->shape().height())
                 : update.run(std::nullopt, shape.height());
}

void BackupRun::commit(const BackupRecord& record) {
  lease_.look();  // so that it is hardly ever found out only when the record is there
  if (!parent_) put_volume_json();
  check_stop(stop_, "backup");

  const std::string text = encode_record(record);
  try {
    if (text.size() > kMaxStoreJson) throw Error(ErrorKind::kCorrupt, "it is too long");
    parse_record(as_bytes(text));
  } catch (const Error& error) {
    throw Error(ErrorKind::kUnsupported, "the backup has more packs than readers take: {}",
                error.message());
  }
  may_be_committed_ = true;
  store_.objects().put(backup_key(lineage_, uuid_), compress_text(text));
  // Whoever revoked the lease before has counted this backup as one that will never be.
  lease_.check_store();
}

// For people who look into the store: nothing reads it. So late, since it is removed with a
// lineage's last backup.
void BackupRun::put_volume_json() {
  const BackupSource& source = plan_.source;
  const nlohmann::json json = {{"version", 1},
                               {"lineage", lineage_.to_string()},
                               {"name", source.volume.name},
                               {"driver", source.driver},
                               {"created", format_rfc3339(source.volume.created)}};
  const std::string text = json.dump() + '\n';
  store_.objects().put_if_absent(volume_key(lineage_), as_bytes(text));
}

// What was stored stays for the next try, unless the store is full. It becomes garbage in time.
void BackupRun::clean_up(bool is_full) {
  // A put of the record that failed may still arrive: only a revocation makes it void then.
  const bool keeps_packs = may_be_committed_ || !is_full;
  attempt("clean up after a failed backup", [&] {
    const bool has_packs = !data_packs_.stop().empty();
    tree_packs_.stop();
    if (may_be_committed_)
      attempt("remove the record of a failed backup",
              [&] { store_.objects().remove(backup_key(lineage_, uuid_)); });
    lease_.release(may_be_committed_ || (has_packs && keeps_packs) ? Lease::Leaves::kPacks
                                                                   : Lease::Leaves::kNothing);
    if (!has_packs || keeps_packs) return;
    try {
      delete_backup(store_, lineage_, uuid_, {}, stop_);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;  // it never was one
    }
  });
}

}  // namespace

BackupRecord create_backup(const Store& store, const BackupPlan& plan, const ProgressSink& progress,
                           std::stop_token stop) {
  check_plan(plan);
  return BackupRun(store, plan, progress, std::move(stop)).run();
}

}  // namespace convoy
