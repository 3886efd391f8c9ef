#include "sys/lock_file.h"

#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include "base/error.h"
#include "sys/file.h"  // NOLINT(readability-duplicate-include): the other is the system's

namespace convoy {

std::optional<LockFile> LockFile::try_lock(const std::filesystem::path& path) {
  UniqueFd fd = open_file(path, O_RDWR | O_CREAT, 0600);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return LockFile(std::move(fd));
  if (errno == EWOULDBLOCK) return std::nullopt;
  throw system_error(errno, fmt::format("can't lock {}", path.native()));
}

std::optional<LockFile> LockFile::lock(const std::filesystem::path& path,
                                       std::chrono::milliseconds timeout) {
  constexpr std::chrono::milliseconds kStep{50};
  std::optional<LockFile> lock = try_lock(path);
  for (auto waited = kStep; !lock && waited <= timeout; waited += kStep) {
    std::this_thread::sleep_for(kStep);
    lock = try_lock(path);
  }
  return lock;
}

}  // namespace convoy
