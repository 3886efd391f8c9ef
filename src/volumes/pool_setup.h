// Bringing the pool up: the first time on devices that must be free for it, later on those that the
// catalog knows.
#pragma once

#include <memory>

#include "catalog/catalog.h"
#include "devmapper/kernel_thin_pool.h"
#include "volumes/pool_options.h"

namespace convoy {

enum class ForeignData { kRefuse, kOverwrite };

// The plan of a new pool: options completed with defaults, devices examined. Throws
// kInvalidArgument, or kBusy for a device in use, with one sentence that says what to do. Changes
// nothing.
PoolRow plan_new_pool(const PoolOptions& options, ForeignData foreign_data);

// Brings up, or takes over if it is active, the pool that the catalog knows; if it knows none,
// makes a new one as plan_new_pool says. Options that contradict the catalog are refused with
// kInvalidArgument, naming the option; new defaults for volumes and new paths of the same devices
// are recorded. After a failure to make a pool, neither the kernel nor the catalog has it.
// `guard_lock_fd`: see SuspendGuard.
std::unique_ptr<KernelThinPool> bring_up_pool(Catalog& catalog, const PoolOptions& options,
                                              ForeignData foreign_data, int guard_lock_fd);

}  // namespace convoy
