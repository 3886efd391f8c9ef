// One request to the kernel's device mapper, through libdevmapper.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <libdevmapper.h>
#include <sys/types.h>

#include "base/units.h"
#include "devmapper/dm_target.h"
#include "devmapper/raw_ioctl.h"

namespace convoy {

// The state of a dm device.
struct DmInfo {
  dev_t device = 0;
  std::string uuid;
  bool suspended = false;
  bool has_table = false;
};

// Requests by name. libdevmapper keeps its control descriptor and its list of node operations in
// globals, so one lock of the process serialises them. What can take long, or must not
// wait for it, goes by RawIoctl: a message that deletes a large device, a status, which waits for
// that in the kernel, and the state of a device. (To make or remove a thin device waits there,
// too.)
class DmTask {
 public:
  // `type` is one of DM_DEVICE_*.
  DmTask(int type, const std::string& name);

  void set_uuid(const std::string& uuid);
  // For DM_DEVICE_RENAME: the UUID that a device without one gets.
  void set_new_uuid(const std::string& uuid);
  void set_read_only();
  void add_target(Sectors length, const std::string& type, const std::string& parameters);

  // Runs it; for requests that make or remove a node, waits until udev (if it runs) has done so.
  // Throws as system_error does, with the kernel's errno, naming the device.
  void run();

  // As run, but an errno of the kernel is returned, and 0 after success.
  int try_run();

  dm_task* get() const { return task_.get(); }

 private:
  struct Destroy {
    void operator()(dm_task* task) const { dm_task_destroy(task); }
  };
  std::unique_ptr<dm_task, Destroy> task_;
  int type_;
  std::string name_;
};

// Nothing if there is no device of that name.
std::optional<DmInfo> dm_info(const std::string& name);
// Nothing if there is no such device or it has no table. Throws kCorrupt if the table has several
// lines.
std::optional<DmTarget> dm_table(const std::string& name);
std::optional<DmTarget> dm_status(const std::string& name);

// The names of all dm devices.
std::vector<std::string> all_dm_names();

// Where no udev does so, makes what is missing under /dev/mapper, and removes what is there without
// a device: a process may have been killed between the two. Throws as DmTask::run.
void settle_dm_nodes();

// Throws kInvalidArgument if the name is too long for the kernel.
DmName to_dm_name(const std::string& name);

// Makes libdevmapper's messages go to our log. Call once, before other threads exist.
void redirect_dm_log();

}  // namespace convoy
