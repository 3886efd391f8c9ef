#include "backup/create_backup.h"

#include <bit>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/backups.h"
#include "backup/chunk_writer.h"
#include "backup/damage_notes.h"
#include "backup/device_io.h"
#include "backup/json_fields.h"
#include "backup/lease.h"
#include "backup/pack_ledger.h"
#include "backup/pack_reader.h"
#include "backup/pack_writer.h"
#include "backup/removal_plan.h"
#include "backup/tree_update.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/name.h"
#include "base/time.h"

namespace convoy {
namespace {

// A tree is written anew when it stands in more packs than this, besides those that it needs: a
// node has at most 8 KiB, so a full pack has at least 2048 of them; half of that leaves room for
// what backups drop. Each incremental backup adds one pack, so this happens every 64 backups at
// most.
constexpr std::uint64_t kMaxExtraTreePacks = 64;
constexpr std::uint64_t kNodesPerTreePack = 1024;

// Packs of data on their way to the store. Enough for a server that answers slowly; each takes 16
// MiB.
constexpr unsigned kDataPutsAtOnce = 4;

NodeReuse reuse_for(const PackUses& packs) {
  std::uint64_t tree_packs = 0, nodes = 0;
  for (const auto& [name, use] : packs) {
    if (name.kind != PackKind::kTree) continue;
    ++tree_packs;
    nodes += use.references;
  }
  return tree_packs > kMaxExtraTreePacks + nodes / kNodesPerTreePack ? NodeReuse::kWriteAll
                                                                     : NodeReuse::kKeepNodes;
}

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
        lease_(store, lineage_, {.backup = uuid_, .builds_on = builds_on(plan)}),
        data_packs_(store.objects(), lineage_, {PackKind::kData, uuid_, 0}, kDataPutsAtOnce),
        tree_packs_(store.objects(), lineage_, {PackKind::kTree, uuid_, 0}, 1) {}

  BackupRecord run();

 private:
  static std::vector<Uuid> builds_on(const BackupPlan& plan) {
    return plan.parent ? std::vector{*plan.parent} : std::vector<Uuid>();
  }

  void read_parent();
  bool repairs() const { return parent_ && (plan_.repair || !damage_.empty()); }
  BackupRecord write_packs_under_lease();
  BackupRecord write_packs();
  ChunkRanges plan_chunks(const TreeShape& shape) const;
  std::optional<Reference> write_tree(const TreeShape& shape, const ChunkRanges& ranges,
                                      ChunkWriter& chunks, PackLedger& ledger);
  void commit(const BackupRecord& record);
  void check_no_plan_names(const PackUses& packs);
  void put_volume_json();
  void clean_up();

  const Store& store_;
  const BackupPlan& plan_;
  const Uuid lineage_;
  const ProgressSink& progress_;
  const std::stop_token stop_;
  const Uuid uuid_ = Uuid::generate();
  const Timestamp created_ = now();
  Lease lease_;
  std::optional<BackupRecord> parent_;
  SlotSet damage_;  // that notes tell of, in the parent's packs
  PackWriter data_packs_;
  PackWriter tree_packs_;
  bool may_be_committed_ = false;
};

BackupRecord BackupRun::run() {
  try {
    read_parent();
    const BackupRecord record = write_packs_under_lease();
    commit(record);
    attempt("remove the lease of a backup", [&] { lease_.release(); });
    return record;
  } catch (...) {
    clean_up();
    throw;
  }
}

// After the lease was put: a remover that has not seen the lease has removed the parent's JSON
// before, so it is missed here.
void BackupRun::read_parent() {
  if (!plan_.parent) return;
  parent_ = with_context("can't build on the parent backup",
                         [&] { return read_backup(store_, lineage_, *plan_.parent); });
  damage_ = list_damage(store_, lineage_);
  damage_.erase_packs([&](const PackName& pack) { return !parent_->packs.contains(pack); });
}

// Without its lease a writer may find the parent's packs removed. That is no damage to the store.
BackupRecord BackupRun::write_packs_under_lease() {
  try {
    return write_packs();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCorrupt) lease_.renew();
    throw;
  }
}

BackupRecord BackupRun::write_packs() {
  const TreeShape shape(plan_.source.size, parent_ ? parent_->chunk_size : plan_.chunk_size);
  const ChunkRanges ranges = plan_chunks(shape);
  const std::uint64_t bytes_to_read = ranges.bytes_to_read(shape);
  ChunkWriter chunks({.device_fd = plan_.device_fd,
                      .shape = shape,
                      .bytes_to_read = bytes_to_read,
                      .compression = plan_.compression,
                      .packs = data_packs_,
                      .before_piece = [&](const BackupStatistics& statistics) {
                        check_stop(stop_, "backup");
                        lease_.check();
                        if (progress_) progress_({statistics.bytes_read, bytes_to_read});
                      }});
  PackLedger ledger(parent_ && !repairs() ? parent_->packs : PackUses());
  const std::optional<Reference> root = write_tree(shape, ranges, chunks, ledger);
  data_packs_.finish();
  tree_packs_.finish();

  if (repairs()) ledger.set_sizes_of(parent_->packs);
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
  std::optional<PackReader> parent_packs;
  if (parent_) {
    footers.emplace(store_.objects(), *parent_);
    parent_packs.emplace(store_.objects(), *parent_, *footers);
  }

  TreeUpdate update(
      {.shape = shape,
       .ranges = ranges,
       .parent_packs = parent_packs ? &*parent_packs : nullptr,
       .tree_packs = tree_packs_,
       .ledger = ledger,
       .update_leaves = [&](std::span<LeafUpdate> leaves) { chunks.update_leaves(leaves); },
       .reuse = repairs() ? NodeReuse::kWriteAll : reuse_for(ledger.uses()),
       .damage = repairs() ? &damage_ : nullptr,
       .stop = stop_});
  return parent_ ? update.run(parent_->root, parent_->shape().height())
                 : update.run(std::nullopt, shape.height());
}

void BackupRun::commit(const BackupRecord& record) {
  lease_.renew();
  check_no_plan_names(record.packs);
  put_volume_json();
  check_stop(stop_, "backup");

  const std::string key = json_key(lineage_, LineagePart::kBackups, uuid_);
  may_be_committed_ = true;
  put_json(store_.objects(), key, encode_record(record));
  // If this host stood still since the last renewal, a remover may have done its work in between.
  // No JSON: it was deleted already.
  if (const auto info = store_.objects().head(key)) lease_.check_at(info->modified);
}

// A plan is dangerous if it names a pack of our own, or if the parent is gone and it names one of
// the parent's: its remover may not have seen our lease. As long as the parent's JSON is there it
// keeps its packs from every remover.
void BackupRun::check_no_plan_names(const PackUses& packs) {
  const std::vector<RemovalPlan> plans = list_plans(store_, lineage_);
  const bool parent_gone =
      plan_.parent && !plans.empty() &&
      !store_.objects().head(json_key(lineage_, LineagePart::kBackups, *plan_.parent));
  for (const RemovalPlan& plan : plans) {
    for (const PackName& pack : plan.packs) {
      if (!packs.contains(pack) || (pack.backup != uuid_ && !parent_gone)) continue;
      throw Error(
          ErrorKind::kUnavailable,
          "the backup would refer to the pack {}, which is being removed as {} says: try again",
          to_string(pack), plan.key);
    }
  }
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

void BackupRun::clean_up() {
  attempt("clean up after a failed backup", [&] {
    if (may_be_committed_) {
      // A put that failed may still arrive, and others may have read the JSON: the packs stay, as
      // garbage if need be.
      store_.objects().remove(json_key(lineage_, LineagePart::kBackups, uuid_));
    } else {
      for (PackWriter* const writer : {&data_packs_, &tree_packs_}) {
        for (const PackName& pack : writer->stop()) {
          store_.objects().remove(pack_key(lineage_, pack));
        }
      }
    }
    lease_.release();
  });
}

}  // namespace

BackupRecord create_backup(const Store& store, const BackupPlan& plan, const ProgressSink& progress,
                           std::stop_token stop) {
  check_plan(plan);
  return BackupRun(store, plan, progress, std::move(stop)).run();
}

}  // namespace convoy
