#include "sys/lock_file.h"

#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include "base/error.h"
#include "sys/file.h"

namespace convoy {

std::optional<LockFile> LockFile::try_lock(const std::filesystem::path& path) {
  UniqueFd fd = open_file(path, O_RDWR | O_CREAT, 0600);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return LockFile(std::move(fd));
  if (errno == EWOULDBLOCK) return std::nullopt;
  throw system_error(errno, fmt::format("can't lock {}", path.native()));
}

}  // namespace convoy
