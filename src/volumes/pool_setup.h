// Bringing the pool up: the first time on devices that must be free for it, later on those that the
// catalog knows.
#pragma once

#include <memory>

#include "catalog/catalog.h"
#include "devmapper/kernel_thin_pool.h"
#include "volumes/pool_options.h"

namespace convoy {

enum class ForeignData { kRefuse, kOverwrite };

// The plan of a root's first pool, with the devices examined: Rancher Convoy's, if its files are
// under `root`, with the options that these allow (see takeover.h); else a new one, of the options
// completed with defaults. Throws kInvalidArgument, or kBusy for a device in use, with one sentence
// that says what to do. Changes nothing.
PoolRow plan_first_pool(const std::filesystem::path& root, const PoolOptions& options,
                        ForeignData foreign_data);

// Brings up, or takes over if it is active, the pool that the catalog knows; if it knows none,
// the one that plan_first_pool says. Options that contradict the catalog are refused with
// kInvalidArgument, naming the option; new defaults for volumes and new paths of the same devices
// are recorded. After a failure to make a pool, neither the kernel nor the catalog has it; a
// takeover that failed is tried again by the next call. `guard_lock_fd`: see SuspendGuard.
std::unique_ptr<KernelThinPool> bring_up_pool(Catalog& catalog, const std::filesystem::path& root,
                                              const PoolOptions& options, ForeignData foreign_data,
                                              int guard_lock_fd);

// The row of a pool that no catalog knows, of the devices in `options` and what they hold. Throws
// as plan_first_pool. Changes nothing.
PoolRow plan_adoption(const PoolOptions& options);

// Brings up, or takes over, the pool of a catalog that may be behind it: the catalog gets to know
// at which transaction the pool is. Throws as bring_up_pool; kCorrupt if the catalog tells of no
// pool.
std::unique_ptr<KernelThinPool> open_known_pool(Catalog& catalog, const std::filesystem::path& root,
                                                const PoolOptions& options, int guard_lock_fd);

}  // namespace convoy
