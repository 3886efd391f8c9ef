// What a remover writes down before it removes packs: the objects in a lineage's gc/. A plan
// outlives a remover that dies, and warns writers.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "backup/layout.h"
#include "backup/pack_set.h"
#include "backup/store.h"
#include "base/time.h"
#include "base/uuid.h"

namespace convoy {

// Of each of a plan's two sets, so many ranges at most: readers refuse what has more. It is always
// less than what they take of any JSON, and little memory.
inline constexpr std::size_t kMaxRangesInPlan = 100'000;

struct RemovalPlan {
  std::string key;
  Timestamp put = {};  // of one that is in the store
  PackSet packs;       // to be removed
  PackSet rewrites;    // to be rewritten without what nobody refers to
  // The backups whose needs the remover knew when it planned. What others refer to may go.
  std::set<Uuid> known;

  bool names(const PackName& pack) const { return packs.contains(pack) || rewrites.contains(pack); }
};

// Throws what ObjectStore::put throws.
void put_plan(const Store& store, const RemovalPlan& plan);

// All plans of a lineage. One that is damaged names no packs: what it named is found again as
// garbage. Throws kUnsupported for one of another version.
std::vector<RemovalPlan> list_plans(const Store& store, const Uuid& lineage);

}  // namespace convoy
