// The thin pool of the running kernel.
#pragma once

#include <map>

#include "base/limits.h"
#include "devmapper/dm_task.h"
#include "devmapper/suspend_guard.h"
#include "devmapper/thin_pool.h"

namespace convoy {

// How a pool is set up in the kernel.
struct PoolTable {
  std::string name;  // of the dm device
  std::string uuid;  // the pool id
  std::filesystem::path data_device;
  std::filesystem::path metadata_device;
  Sectors block_size;
  unsigned low_watermark = kDefaultLowWatermark;  // percent
  // A write that needs a block when there is none waits (for a minute, by the module's parameter
  // no_space_timeout) before it fails.
  bool queue_when_full = false;
};

// Where the kernel's pool of this name reads and writes, if it is active.
struct ActivePool {
  std::string dm_uuid;
  dev_t data_device = 0;
  dev_t metadata_device = 0;
  Sectors block_size;
};

// "CONVOY-<pool id>-<object uuid>", the dm UUID of every device of ours. The pool's own has its id
// twice.
std::string dm_uuid(const std::string& pool_uuid, const std::string& object_uuid);

// Whether a dm device that others made has become ours.
enum class Adoption { kInactive, kAdopted, kForeign };

class KernelThinPool : public ThinPool {
 public:
  // The pool that is active under `name`; nothing if there is none. Throws kAlreadyExists if a dm
  // device of that name exists that is no thin pool.
  static std::optional<ActivePool> find(const std::string& name);

  // Removes what a process leaves that was killed while it made the pool: a device with this dm
  // name, this pool's UUID, and no table. Nobody else may be making the pool.
  static void remove_unfinished_pool(const std::string& name, const std::string& pool_uuid);

  // Brings the pool up (whether its metadata device holds one or zeros, the caller has looked), or
  // takes the one that is active under table.name, which must be ours, or `without_uuid` nobody's.
  // Before that, the nodes under /dev/mapper are put in order (settle_dm_nodes).
  // `guard_lock_fd`: see SuspendGuard.
  enum class WithoutUuid { kRefused, kAccepted };
  KernelThinPool(PoolTable table, int guard_lock_fd,
                 WithoutUuid without_uuid = WithoutUuid::kRefused);

  // Gives an accepted pool our UUID and our table, whatever it had. Those who use its thin devices
  // wait for a moment. May be done again.
  void make_ours();

  // Gives a pool that was active already the low water mark and the behaviour when full of our
  // table, if it has others. As make_ours.
  void apply_settings();

  // The device of this name becomes ours, while it is in use too, if it has no dm UUID and is just
  // what activate would make of the other arguments. Another one is left as it is.
  Adoption adopt(const std::string& name, const std::string& object_uuid, ThinId id, Sectors size);

  // Takes the pool's device away; its thin devices must be inactive. Throws kBusy else.
  void shut_down();

  PoolStatus status() override;
  Effect create_thin(ThinId id) override;
  Effect create_snapshot(ThinId snapshot, ThinId origin,
                         const std::optional<std::string>& origin_name) override;
  Effect delete_thin(ThinId id) override;
  void set_transaction_id(std::uint64_t from, std::uint64_t to) override;
  void grow() override;
  void reserve_metadata_snapshot() override;
  void release_metadata_snapshot() override;
  const std::filesystem::path& metadata_device() const override { return table_.metadata_device; }
  std::filesystem::path device_path(const std::string& name) const override {
    return "/dev/mapper/" + name;
  }
  void activate(const std::string& name, const std::string& object_uuid, ThinId id, Sectors size,
                Access access) override;
  Effect deactivate(const std::string& name) override;
  void resume(const std::string& name) override;
  std::vector<ActiveThin> active() override;
  std::map<std::uint32_t, std::string> active_in_others() override;
  bool name_in_use(const std::string& name) override;
  std::optional<Sectors> mapped(const std::string& name) override;
  std::optional<dev_t> device_number(const std::string& name) override;

 private:
  // Loads our table, for a pool of this length, in place of the active one.
  void reload(Sectors length);
  // The errno of a message to the pool, 0 after success.
  int send(const std::string& message);
  // Removes what was left of our device when a process was killed while it made it: it has no
  // table.
  void remove_unfinished(const std::string& name);
  int snapshot_active(ThinId snapshot, ThinId origin, const std::string& origin_name);
  bool is_ours(const DmInfo& info) const;

  PoolTable table_;
  SuspendGuard guard_;
};

}  // namespace convoy
