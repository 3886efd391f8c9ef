// Device mapper's ioctls without libdevmapper, for where its memory allocation, its sysfs reads or
// its globals are in the way. The interface is linux/dm-ioctl.h, version 4. Throws nothing and
// needs no library, for the suspend guard.
#pragma once

#include <array>

#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#include "sys/unique_fd.h"

namespace convoy {

using DmName = std::array<char, DM_NAME_LEN>;

// An ioctl on one device, with room for a message of a thin pool or a target's status. Preparing
// and running it allocates nothing.
struct RawIoctl {
  dm_ioctl header;
  // The kernel lays out structs in it from its start on.
  alignas(8) std::array<char, 1024> payload;

  // A request without a message: DM_DEV_SUSPEND suspends if `flags` has DM_SUSPEND_FLAG, else it
  // resumes.
  static RawIoctl prepare(const DmName& name, unsigned flags = 0);
  // For DM_TARGET_MSG, to a target at sector 0. `message` has at most 100 characters.
  static RawIoctl prepare_message(const DmName& name, const char* message);

  // The kernel's errno, or 0. It may be run once: the kernel writes its answer into it.
  int run(const UniqueFd& control, unsigned long command);

  // The device's number, after any request that the kernel did.
  dev_t device() const;
};

// The descriptor that all of them go through; not open if the kernel has no device mapper or we may
// not use it, with errno set.
UniqueFd open_dm_control();

}  // namespace convoy
