#include "backup/compaction.h"

#include "base/limits.h"

namespace convoy {
namespace {

// The limits keep the requests of a restore, a verification or a collection below twice those of a
// first backup, after a thousand incremental ones: bench/backup_decay.cc. What is stored again for
// that is a fifth of all that is stored.

// A tree is written anew when it stands in more packs than this, besides those that it needs: a
// node has at most 8 KiB, so a full pack has at least 2048 of them; half of that leaves room for
// what backups drop.
constexpr std::uint64_t kMaxExtraTreePacks = 12;
constexpr std::uint64_t kNodesPerTreePack = 1024;

// So many packs of chunks may hold little, and one more for every four that hold much.
constexpr std::uint64_t kMaxSmallPacks = 8;
constexpr std::uint64_t kLargePacksPerSmall = 4;

}  // namespace

bool is_tree_scattered(const PackUses& packs) {
  std::uint64_t tree_packs = 0, nodes = 0;
  for (const auto& [name, use] : packs) {
    if (name.kind != PackKind::kTree) continue;
    ++tree_packs;
    nodes += use.references;
  }
  return tree_packs > kMaxExtraTreePacks + nodes / kNodesPerTreePack;
}

std::set<PackName> scattered_packs(const PackUses& packs, std::uint32_t chunk_size) {
  std::set<PackName> small;
  std::uint64_t large = 0;
  for (const auto& [name, use] : packs) {
    if (name.kind != PackKind::kData) continue;
    // Plain bytes: half a pack of them is less than half a pack, however little they compress.
    if (use.references * chunk_size < kPackTargetSize / 2)
      small.insert(name);
    else
      ++large;
  }
  return small.size() > kMaxSmallPacks + large / kLargePacksPerSmall ? small : std::set<PackName>();
}

}  // namespace convoy
