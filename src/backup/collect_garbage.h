// Frees what a lineage's packs take and nobody needs.
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "backup/layout.h"
#include "backup/progress.h"
#include "backup/store.h"
#include "base/uuid.h"

namespace convoy {

// A pack that a collection removed or rewrote, or would.
struct CollectedPack {
  enum class Action { kRemoved, kRewritten };
  Action action;
  PackName pack;
  std::uint64_t size = 0;   // of the pack, in bytes
  std::uint64_t freed = 0;  // of them
};

struct Collection {
  std::vector<CollectedPack> packs;
  // Why packs were not rewritten, for people; empty if nothing stood in the way.
  std::string not_rewritten;
};

// kWhatNobodyRefersTo also removes what removers that died have left, and packs of backups that
// were never completed, after a day. kHalfDead, besides, rewrites packs of which less than
// kMinLiveShare is needed; for that it reads the trees of all backups. kPlanOnly tells what
// kHalfDead would do.
enum class CollectionMode { kPlanOnly, kWhatNobodyRefersTo, kHalfDead };

// Any number of hosts may do this at once, and make and delete backups meanwhile. Progress counts
// packs that are removed or rewritten, by their bytes. Throws kCorrupt or kUnsupported, before
// anything is changed, if a backup of the lineage can't be read, since nobody knows what that one
// needs: delete it first. kCancelled soon after a request. After any error some of it is done, and
// the next collection does the rest.
Collection collect_garbage(const Store& store, const Uuid& lineage, CollectionMode mode,
                           const ProgressSink& progress, const std::stop_token& stop);

// Deletes a backup, which is gone as soon as its record is; what follows frees space, as
// kWhatNobodyRefersTo says. With a lineage's last backup all of it goes, unless somebody is writing
// another one.
//
// Throws as collect_garbage; kNotFound if the store has no such backup (leftovers of its deletion
// are removed nevertheless). A backup whose own record is damaged can be deleted. The message of
// kCancelled tells whether the backup is gone, or that it may be. After any other error it may or
// may not be. What is left is removed by the next deletion.
void delete_backup(const Store& store, const Uuid& lineage, const Uuid& backup,
                   const ProgressSink& progress = {}, const std::stop_token& stop = {});

}  // namespace convoy
