// Tells the log when the pool gets full, or stops taking changes, and when that has passed.
#pragma once

#include <optional>
#include <thread>

#include "devmapper/dm_events.h"
#include "volumes/pool_space.h"
#include "volumes/volumes.h"

namespace convoy {

// A thread, which ends with it. `volumes` must outlive it.
class PoolWatch {
 public:
  // Throws as DmEvents.
  explicit PoolWatch(Volumes& volumes);

 private:
  void look();

  Volumes& volumes_;
  DmEvents events_;
  SpaceLevel level_ = SpaceLevel::kEnough;
  PoolStatus::Mode mode_ = PoolStatus::Mode::kReadWrite;
  std::jthread thread_;  // last, since it uses all the others
};

}  // namespace convoy
