// What the daemon and its suspend guard say to each other over a socket: one packet each way. They
// are of one version, since the daemon takes the program that is there when it brings the pool up.
// A packet of another size ends the guard.
#pragma once

#include <cstdint>

#include "devmapper/raw_ioctl.h"

namespace convoy {

struct SuspendGuardRequest {
  DmName pool_name;
  DmName origin_name;
  std::uint32_t origin;
  std::uint32_t snapshot;
};

// Each is an errno, 0 for success.
struct SuspendGuardReply {
  std::int32_t suspend;
  std::int32_t snapshot;
  std::int32_t resume;
};

}  // namespace convoy
