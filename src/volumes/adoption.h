// Building a catalog from a pool alone, or bringing an old copy of it up to date: what is done when
// the catalog is lost or damaged.
//
// The pool is the truth: every thin device in it gets a row, and rows without a device go. A device
// that no row tells of is a snapshot if nothing was ever written to it since it was made; the
// volume that it is of is the one that it shares most blocks with. All others are volumes. Their
// names are "recovered-<thin id>", unless they are active under another one; sizes and types are
// those of their file systems, or, without one, reach to the last block that is mapped.
//
// The new catalog is made beside the old one's place and put there when it is complete: a crash
// leaves all as it was.
#pragma once

#include <filesystem>

#include "catalog/catalog.h"
#include "volumes/pool_options.h"

namespace convoy {

// Makes a catalog under `root`, which has none, of the pool that is on the devices in `options`. An
// inactive pool is inactive again after this, whatever its end. Throws kInvalidArgument, with what
// to do, if the devices hold no pool of ours, or the root has another one; what bring_up_pool
// throws for devices and metadata that won't do. After an error there is no catalog.
// `guard_lock_fd`: see SuspendGuard.
void adopt_pool(const std::filesystem::path& root, const PoolOptions& options, int guard_lock_fd);

// If there is a copy of the catalog under `root`, and the catalog is missing, damaged, or tells of
// no pool: puts the copy in its place, with the pool's devices as they are now. Not
// where Rancher Convoy's files are: its pool is taken over anew. The damaged one is kept, as
// "catalog.db.broken-<time>". Throws kCorrupt, with what to do, if the copy won't do either.
void restore_lost_catalog(const std::filesystem::path& root, const PoolOptions& options,
                          int guard_lock_fd);

// Whether there is a catalog, or a copy that restore_lost_catalog would take.
bool has_catalog(const std::filesystem::path& root);

std::filesystem::path catalog_path(const std::filesystem::path& root);

}  // namespace convoy
