// Events of dm devices: a thin pool has one when it gets to its low water mark, and when its mode
// changes.
#pragma once

#include <chrono>
#include <stop_token>

#include "sys/unique_fd.h"

namespace convoy {

// Used by one thread.
class DmEvents {
 public:
  // Throws as system_error does if the kernel's device mapper can't be talked to.
  DmEvents();

  // Returns when any dm device has had an event since the last call (or since this was made), after
  // `timeout`, or when a stop is requested. (drivers/md/dm-ioctl.c: dev_arm_poll, dm_poll.)
  void wait(std::chrono::milliseconds timeout, const std::stop_token& stop);

 private:
  UniqueFd control_;
  UniqueFd wake_;
};

}  // namespace convoy
