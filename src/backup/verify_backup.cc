#include "backup/verify_backup.h"

#include <algorithm>
#include <deque>

#include <fmt/format.h>

#include "backup/ordered_workers.h"
#include "backup/pack_footers.h"
#include "backup/pack_reader.h"
#include "base/error.h"

namespace convoy {
namespace {

// Chunks that stand in one place of a pack with others whose turn has not come yet: 5 MiB of them.
constexpr std::size_t kMaxRepetitions = 1U << 16U;

}  // namespace

Verifier::Verifier(const Store& store, const Uuid& lineage, VerifyDepth depth)
    : store_(store), lineage_(lineage), depth_(depth) {
  store.objects().list(prefix_of(lineage, LineagePart::kPacks), [&](const ObjectInfo& info) {
    if (const auto object = parse_pack_key(info.key)) sizes_[object->pack] = info.size;
  });
}

std::vector<Damage> Verifier::verify(const BackupRecord& record, const ProgressSink& progress,
                                     const std::stop_token& stop) {
  DamageList damages;
  SlotSet broken;  // of what this backup refers to
  const DamageSink damaged = [&](Damage damage) {
    {
      const std::lock_guard lock(mutex_);
      broken.insert(damage.reference);
    }
    damages.add(std::move(damage));
  };
  const std::map<PackName, std::string> grown = grown_packs(record);
  // What stands in such a pack can be read, but the next backup should not build on it.
  const auto is_in_grown_pack = [&](const Reference& reference, const ByteRange& range) {
    const auto found = grown.find(reference.pack);
    if (found == grown.end()) return false;
    damaged({.range = range, .reference = reference, .reason = found->second});
    return true;
  };

  const std::uint64_t size = record.info.source.size;
  const auto report = [&](std::uint64_t done) {
    if (progress) progress({.bytes_done = done, .bytes_total = size});
  };
  using Piece = PackOrder::Piece;
  PackFooters footers(store_.objects(), lineage_, record.packs);
  NodeReader nodes(store_.objects(), record, footers);
  std::deque<PackReader> readers;
  while (readers.size() < fetcher_count()) readers.emplace_back(store_.objects(), record, footers);
  OrderedWorkers<Piece> workers(
      fetcher_count(), fetcher_count() * std::size_t{2},
      [&](const Piece& piece, unsigned thread) {
        check_stop(stop, "verification");
        const auto is_chunk = [&](std::size_t index, std::span<const std::byte> plain) {
          check_stop(stop, "verification");
          check_chunk_length(piece[index], plain);
          remember_sound(piece[index].reference);
        };
        if (depth_ == VerifyDepth::kFull)
          read_despite_damage(readers[thread], piece, record.chunk_size, is_chunk, damaged);
        else
          find_places(readers[thread], piece, damaged);
      },
      [](const Piece&) {}, [&] { check_stop(stop, "verification"); });
  const auto nothing_broken = [&] {
    const std::lock_guard lock(mutex_);
    return broken_.empty() && broken.empty();
  };
  std::uint64_t done = 0;
  PackOrder order(record.chunk_size, [&](Piece piece) {
    check_stop(stop, "verification");
    for (const PackReader::Item& chunk : piece) done += chunk.range.length();
    report(done);
    workers.add(std::move(piece));
  });
  SlotSet waiting;                            // what is in the order
  std::vector<PackReader::Item> repetitions;  // of that
  const auto verify_waiting = [&] {
    order.flush();
    workers.wait();
    for (const PackReader::Item& chunk : repetitions) {
      if (!is_sound(chunk.reference)) damaged(seen_before(chunk, record, "at another place"));
    }
    repetitions.clear();
    waiting = {};
  };
  // A node that is sound may stand above broken chunks: all nodes are looked into once there are
  // any.
  SlotSet walked;
  BackupWalk({.record = record,
              .nodes = nodes,
              .damaged = damaged,
              .work = "verification",
              .stop = stop,
              .known =
                  [&](const Reference& node) {
                    if (is_in_grown_pack(node, {0, size})) return false;
                    if (nothing_broken() && is_sound(node)) return true;
                    walked.insert(node);
                    return false;
                  }})
      .run([&](std::span<const PackReader::Item> chunks) {
        for (const PackReader::Item& chunk : chunks) {
          if (is_in_grown_pack(chunk.reference, chunk.range)) continue;
          if (is_sound(chunk.reference)) continue;
          if (broken_.contains(chunk.reference)) {
            damaged(seen_before(chunk, record, "in another backup"));
          } else if (waiting.contains(chunk.reference)) {
            repetitions.push_back(chunk);
          } else {
            waiting.insert(chunk.reference);
            order.add(std::span(&chunk, 1));
          }
        }
        if (repetitions.size() >= kMaxRepetitions) verify_waiting();
      });
  verify_waiting();
  report(size);
  if (nothing_broken()) {
    walked.for_each([&](const PackName& pack, std::uint32_t slot) {
      remember_sound({.pack = pack, .slot = slot, .digest = {}});
    });
  }
  // A backup that was deleted meanwhile has lost its packs, too.
  if (!broken.empty() && !is_there(record)) return {};
  broken.for_each([&](const PackName& pack, std::uint32_t slot) { broken_.insert(pack, slot); });
  return damages.take();
}

bool Verifier::is_there(const BackupRecord& record) const {
  return store_.objects().head(backup_key(lineage_, record.info.uuid)).has_value();
}

// And what is to be said of them. A pack that is missing or too short shows at each of its chunks.
std::map<PackName, std::string> Verifier::grown_packs(const BackupRecord& record) const {
  std::map<PackName, std::string> grown;
  for (const auto& [pack, use] : record.packs) {
    const auto found = sizes_.find(pack);
    if (found == sizes_.end() || found->second <= use.size) continue;
    grown[pack] = fmt::format("backup {}, {}: the pack has {} bytes, and should have {}",
                              record.info.uuid.to_string(), pack_key(lineage_, pack), found->second,
                              use.size);
  }
  return grown;
}

void Verifier::find_places(PackReader& packs, std::span<const PackReader::Item> chunks,
                           const DamageSink& damaged) {
  for (const PackReader::Item& chunk : chunks) {
    try {
      packs.check_place(chunk);
      remember_sound(chunk.reference);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt) throw;
      damaged({.range = chunk.range, .reference = chunk.reference, .reason = error.message()});
    }
  }
}

Damage Verifier::seen_before(const PackReader::Item& chunk, const BackupRecord& record,
                             std::string_view where) const {
  return {.range = chunk.range,
          .reference = chunk.reference,
          .reason = fmt::format(
              "backup {}, bytes {} to {} of the volume, {}: slot {} is broken, as was seen {}",
              record.info.uuid.to_string(), chunk.range.begin, chunk.range.end,
              pack_key(lineage_, chunk.reference.pack), chunk.reference.slot, where)};
}

bool Verifier::is_sound(const Reference& reference) const {
  const std::lock_guard lock(mutex_);
  return sound_.contains(reference);
}

void Verifier::remember_sound(const Reference& reference) {
  const std::lock_guard lock(mutex_);
  sound_.insert(reference);
}

void Verifier::note_damage() const {
  put_damage_note(store_, lineage_, broken_);
}

}  // namespace convoy
