// The kernel's thin pool as the layers above see it: its verbs on one pool and the thin devices in
// it. Behind an interface, so that a test can force what the kernel won't give on request.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/units.h"
#include "sys/block_device.h"

namespace convoy {

// A 24-bit device id inside a pool.
struct ThinId {
  std::uint32_t value = 0;
  constexpr auto operator<=>(const ThinId&) const = default;
};

// What the kernel says of a pool (Documentation/admin-guide/device-mapper/thin-provisioning.rst,
// "Status").
struct PoolStatus {
  enum class Mode { kReadWrite, kReadOnly, kOutOfDataSpace, kFailed };

  std::uint64_t transaction_id = 0;
  std::uint64_t used_metadata_blocks = 0;  // of 4 KiB
  std::uint64_t total_metadata_blocks = 0;
  PoolBlocks used_data;
  PoolBlocks total_data;
  std::uint64_t metadata_snapshot = 0;  // its block in the metadata; 0: none is held
  Mode mode = Mode::kReadWrite;
  bool needs_check = false;
};

// Parses the parameters of a thin-pool's status line. Throws kCorrupt if they don't have the
// kernel's form.
PoolStatus parse_pool_status(const std::string& parameters);

// For people.
const char* to_text(PoolStatus::Mode mode);

// Throws kUnavailable, telling why, if nothing of the pool's metadata can be changed.
void require_writable(const PoolStatus& status);

// Verbs that may find their work done say so: recovery repeats them.
enum class Effect { kChanged, kUnchanged };

// A thin device that is active: it has a dm name and can be opened.
struct ActiveThin {
  std::string name;
  std::string object_uuid;  // the last part of its dm UUID
  ThinId thin_id;
  Sectors size;
  bool suspended = false;
};

// All calls are thread-safe. All throw kIo (kNoSpace, kBusy where the kernel says so) with the
// kernel's reason.
class ThinPool {
 public:
  ThinPool() = default;
  ThinPool(const ThinPool&) = delete;
  ThinPool& operator=(const ThinPool&) = delete;
  virtual ~ThinPool() = default;

  virtual PoolStatus status() = 0;

  // Makes an empty thin device. kUnchanged if the id exists already.
  virtual Effect create_thin(ThinId id) = 0;

  // Makes `snapshot` a copy of `origin` as it is at one moment during the call. An active origin,
  // `origin_name`, is suspended around that moment: its file system is flushed and its writers
  // wait. It is resumed whatever happens to this process. kUnchanged if the id exists already.
  virtual Effect create_snapshot(ThinId snapshot, ThinId origin,
                                 const std::optional<std::string>& origin_name) = 0;

  // kUnchanged if there is no such device; kBusy if it is active.
  virtual Effect delete_thin(ThinId id) = 0;

  // Compare and set, committed with all changes before it. After kIo it may or may not have been: a
  // pool that is read-only since then tells when it is active again.
  virtual void set_transaction_id(std::uint64_t from, std::uint64_t to) = 0;

  // Uses the whole of the devices, which have become larger under the running pool. Who uses thin
  // devices waits for a moment. Throws kInvalidArgument if the data device has become smaller.
  virtual void grow() = 0;

  // Pins the metadata as they are now, for a reader of metadata_device(). A pool has one such
  // snapshot: kBusy if it is held.
  virtual void reserve_metadata_snapshot() = 0;
  virtual void release_metadata_snapshot() = 0;
  virtual const std::filesystem::path& metadata_device() const = 0;

  // Where the thin device that is active under this name can be opened: /dev/mapper/<name>.
  virtual std::filesystem::path device_path(const std::string& name) const = 0;

  // Makes device_path(name) for thin device `id`. Throws kAlreadyExists if a device of that name is
  // there.
  virtual void activate(const std::string& name, const std::string& object_uuid, ThinId id,
                        Sectors size, Access access) = 0;
  // Takes it away, trying again while it is busy up to kBusyRetryLimit; then throws
  // kBusy. kUnchanged if there is no such device of this pool.
  virtual Effect deactivate(const std::string& name) = 0;
  virtual void resume(const std::string& name) = 0;

  // This pool's thin devices that are active. Devices of others, even with a name that looks like
  // ours, are not among them.
  virtual std::vector<ActiveThin> active() = 0;

  // The thin ids that devices of others have active, and the dm names of those. The kernel would
  // let the same thin device be active a second time, as another block device.
  virtual std::map<std::uint32_t, std::string> active_in_others() = 0;

  // True if a dm device of this name exists, whoever made it.
  virtual bool name_in_use(const std::string& name) = 0;

  // How much of an active thin device is mapped; nothing if it isn't active.
  virtual std::optional<Sectors> mapped(const std::string& name) = 0;

  // The block device's number; nothing if it isn't active.
  virtual std::optional<dev_t> device_number(const std::string& name) = 0;
};

}  // namespace convoy
