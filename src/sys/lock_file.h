// A lock that lasts as long as the process, however it ends.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>

#include "sys/unique_fd.h"

namespace convoy {

class LockFile {
 public:
  // Takes the lock on the file at `path`, which is made if it is missing and never removed (a
  // removed lock file could be locked by two). Nothing if another process has it. The lock is
  // flock(2)'s: it ends with its descriptor.
  static std::optional<LockFile> try_lock(const std::filesystem::path& path);

  // As try_lock, trying again for `timeout`.
  static std::optional<LockFile> lock(const std::filesystem::path& path,
                                      std::chrono::milliseconds timeout);

  // A child process that inherits it holds the lock, too, until it ends.
  int fd() const { return fd_.get(); }

 private:
  explicit LockFile(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace convoy
