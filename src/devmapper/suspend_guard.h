// The process that snapshots active devices. A device that is suspended freezes everybody who
// writes to it, so suspending is not left to the daemon, which can be killed with the request in
// hand: this small process does suspend, create_snap and resume in one go. It is locked in memory,
// ignores the signals that stop the daemon, opens and allocates nothing in between, and ends when
// its socket closes, never with a device suspended.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include <sys/types.h>

#include "sys/unique_fd.h"

namespace convoy {

// The daemon's end.
class SuspendGuard {
 public:
  struct Request {
    std::string pool_name;
    std::string origin_name;
    std::uint32_t origin = 0;
    std::uint32_t snapshot = 0;
  };

  // Starts the process, and takes the program that it finds now for all later ones: a new version
  // may be installed while this runs. It inherits the descriptor `lock_fd`, whose flock therefore
  // lasts until the guard has ended, too: whoever takes that lock knows that no guard of before is
  // still at work. -1: none.
  explicit SuspendGuard(int lock_fd);
  ~SuspendGuard();
  SuspendGuard(const SuspendGuard&) = delete;
  SuspendGuard& operator=(const SuspendGuard&) = delete;

  // Suspends the origin, snapshots it and resumes it; the errno of the snapshot is returned, 0
  // after success. Throws as system_error does if suspending or resuming failed; in the latter case
  // the message says how to resume by hand. If the process has died, throws kUnavailable; the next
  // call starts another. Thread-safe; one at a time.
  int snapshot(const Request& request);

 private:
  void start();
  void stop();

  const UniqueFd program_;
  const int lock_fd_;
  std::mutex lock_;
  UniqueFd socket_;
  pid_t pid_ = -1;
};

// src/main/suspend_guard.cc; in the directory of the program that has a SuspendGuard, or beside
// that one in libexec/convoy.
inline constexpr const char* kSuspendGuardProgram = "convoy-suspend-guard";

}  // namespace convoy
