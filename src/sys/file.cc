#include "sys/file.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/crash_point.h"
#include "base/error.h"

namespace convoy {

UniqueFd open_file(const std::filesystem::path& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd >= 0) return UniqueFd(fd);
  if (errno == ENOENT) throw Error(ErrorKind::kNotFound, "{} does not exist", path.native());
  throw system_error(errno, fmt::format("can't open {}", path.native()));
}

void read_exactly_at(int fd, std::span<std::byte> out, std::uint64_t offset) {
  while (!out.empty()) {
    const ssize_t count = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      throw system_error(errno,
                         fmt::format("can't read {} bytes at offset {}", out.size(), offset));
    if (count == 0)
      throw Error(ErrorKind::kIo, "file ends at offset {}, {} bytes too early", offset, out.size());
    out = out.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

void write_all_at(int fd, std::span<const std::byte> data, std::uint64_t offset) {
  while (!data.empty()) {
    const ssize_t count = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      throw system_error(errno,
                         fmt::format("can't write {} bytes at offset {}", data.size(), offset));
    data = data.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  crash_point("write");
}

void write_all(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t count = ::write(fd, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw system_error(errno, "can't write");
    data = data.subspan(static_cast<std::size_t>(count));
  }
}

std::string read_text_file(const std::filesystem::path& path) {
  const UniqueFd fd = open_file(path, O_RDONLY);
  std::string text;
  std::array<char, 16384> buffer;
  while (true) {
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw system_error(errno, fmt::format("can't read {}", path.native()));
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

void fsync_file(int fd, const std::filesystem::path& path_for_messages) {
  if (::fsync(fd) != 0)
    throw system_error(errno, fmt::format("can't sync {}", path_for_messages.native()));
}

void fsync_directory(const std::filesystem::path& directory) {
  const UniqueFd fd = open_file(directory, O_RDONLY | O_DIRECTORY);
  fsync_file(fd.get(), directory);
}

void make_directories(const std::filesystem::path& directory) {
  if (::mkdir(directory.c_str(), 0755) == 0) {
    crash_point("directory made");
    return fsync_directory(directory.parent_path());
  }
  if (errno == ENOENT && directory.has_parent_path() && directory.parent_path() != directory) {
    make_directories(directory.parent_path());
    return make_directories(directory);
  }
  const int error = errno;
  std::error_code ignored;
  if (error == EEXIST && std::filesystem::is_directory(directory, ignored)) return;
  throw system_error(error, fmt::format("can't make the directory {}", directory.native()));
}

}  // namespace convoy
