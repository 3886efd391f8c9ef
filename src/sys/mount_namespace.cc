#include "sys/mount_namespace.h"

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <libmount.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "sys/file.h"
#include "sys/unique_fd.h"

namespace convoy {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// The kernel writes space, tab, newline and backslash as \ooo (fs/proc_namespace.c: mangle).
std::string unescape(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, code, 8).ptr ==
            text.data() + i + 4) {
      result += static_cast<char>(code);
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

std::optional<dev_t> parse_device_number(std::string_view text) {
  unsigned major_number = 0;
  unsigned minor_number = 0;
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto first = std::from_chars(begin, end, major_number);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != ':') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, minor_number);
  if (second.ec != std::errc{} || second.ptr != end) return std::nullopt;
  return makedev(major_number, minor_number);
}

}  // namespace

MountOptions parse_mount_options(const std::string& options) {
  char* flags_text = nullptr;
  char* data = nullptr;
  // The third kind, for programs in user space ("nofail"), is nothing to the kernel.
  const int error = mnt_split_optstr(options.c_str(), nullptr, &flags_text, &data, 0, 0);
  const std::unique_ptr<char, decltype(&::free)> free_flags(flags_text, &::free);
  const std::unique_ptr<char, decltype(&::free)> free_data(data, &::free);
  MountOptions parsed;
  if (error != 0 ||
      (flags_text != nullptr && mnt_optstr_get_flags(flags_text, &parsed.flags,
                                                     mnt_get_builtin_optmap(MNT_LINUX_MAP)) != 0)) {
    throw Error(ErrorKind::kInvalidArgument, "'{}' are no mount options", options);
  }
  if (data != nullptr) parsed.data = data;
  return parsed;
}

std::vector<Mount> parse_mountinfo(std::string_view text) {
  // 36 35 98:0 /root /target rw,noatime master:1 - ext4 /dev/source rw
  std::vector<Mount> mounts;
  for (const std::string_view line : split(text, '\n')) {
    const std::vector<std::string_view> fields = split(line, ' ');
    if (fields.size() < 6) continue;
    const std::optional<dev_t> device = parse_device_number(fields[2]);
    if (device) mounts.push_back({*device, unescape(fields[3]), unescape(fields[4])});
  }
  return mounts;
}

MountNamespace::MountNamespace(std::filesystem::path path) : path_(std::move(path)) {
  try {
    run([] {});
  } catch (const Error& error) {
    throw Error(ErrorKind::kInvalidArgument, "{} is not a mount namespace that can be entered ({})",
                path_.native(), error.message());
  }
}

void MountNamespace::run(const std::function<void()>& action) const {
  if (path_.empty()) return action();
  std::exception_ptr failure;
  std::jthread([&] {
    try {
      const UniqueFd fd = open_file(path_, O_RDONLY);
      if (::unshare(CLONE_FS) != 0) throw system_error(errno, "unshare");
      if (::setns(fd.get(), CLONE_NEWNS) != 0) throw system_error(errno, "setns");
      action();
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

void MountNamespace::mount(const std::filesystem::path& device, const std::filesystem::path& target,
                           const std::string& filesystem, const std::string& options) const {
  const MountOptions parsed = parse_mount_options(options);
  run([&] {
    if (::mount(device.c_str(), target.c_str(), filesystem.c_str(), parsed.flags,
                parsed.data.c_str()) == 0) {
      return crash_point("mount");
    }
    const int error = errno;
    if (error == EINVAL && !options.empty()) {
      throw Error(ErrorKind::kInvalidArgument,
                  "{} can't be mounted with the options '{}', or is no {} file system; the "
                  "kernel's log says more",
                  device.native(), options, filesystem);
    }
    throw system_error(error,
                       fmt::format("can't mount {} at {}", device.native(), target.native()));
  });
}

std::uint64_t MountNamespace::trim(const std::filesystem::path& target, dev_t device,
                                   std::uint64_t begin, std::uint64_t end) const {
  fstrim_range range = {};
  range.start = begin;
  range.len = end - begin;
  run([&] {
    const UniqueFd fd = open_file(target, O_RDONLY | O_DIRECTORY);
    struct stat info = {};
    if (::fstat(fd.get(), &info) != 0) throw system_error(errno, target.native());
    if (info.st_dev != device) {
      throw Error(ErrorKind::kUnavailable, "something else is mounted at {} now", target.native());
    }
    if (::ioctl(fd.get(), FITRIM, &range) == 0) return crash_point("trim");
    const int error = errno;
    range.len = 0;
    if (error == EINVAL) return;  // the file system ends before
    if (error == EOPNOTSUPP || error == ENOTTY) {
      throw Error(ErrorKind::kUnsupported,
                  "the file system at {}, or its device, takes no discards", target.native());
    }
    throw system_error(error, fmt::format("can't trim {}", target.native()));
  });
  return range.len;
}

void MountNamespace::unmount(const std::filesystem::path& target) const {
  run([&] {
    if (::umount2(target.c_str(), UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT)
      return crash_point("umount");
    if (errno == EBUSY)
      throw Error(ErrorKind::kBusy, "a process still uses a file in {}", target.native());
    throw system_error(errno, fmt::format("can't unmount {}", target.native()));
  });
}

std::vector<Mount> MountNamespace::mounts() const {
  std::string text;
  // The thread's own view: "self" would be that of the process's first thread.
  run([&] { text = read_text_file("/proc/thread-self/mountinfo"); });
  return parse_mountinfo(text);
}

void MountNamespace::sync(const std::filesystem::path& target) const {
  run([&] {
    const UniqueFd fd = open_file(target, O_RDONLY | O_DIRECTORY);
    if (::syncfs(fd.get()) != 0)
      throw system_error(errno, fmt::format("can't sync {}", target.native()));
  });
}

std::filesystem::path MountNamespace::canonical(const std::filesystem::path& path) const {
  std::filesystem::path result;
  run([&] {
    std::error_code error;
    result = std::filesystem::weakly_canonical(path, error);
    if (error) throw system_error(error.value(), path.native());
  });
  // "/a/" is "/a" to the kernel.
  return result.has_filename() ? result : result.parent_path();
}

bool MountNamespace::is_directory(const std::filesystem::path& path) const {
  bool result = false;
  run([&] {
    std::error_code error;
    result = std::filesystem::is_directory(path, error);
  });
  return result;
}

void MountNamespace::make_directories(const std::filesystem::path& directory) const {
  run([&] { convoy::make_directories(directory); });
}

void MountNamespace::remove_directory(const std::filesystem::path& directory) const {
  run([&] {
    if (::rmdir(directory.c_str()) != 0) {
      if (errno == ENOENT) return;
      throw system_error(errno, fmt::format("can't remove the directory {}", directory.native()));
    }
    crash_point("directory removed");
    // A power cut must not bring it back: nobody would know it any more.
    fsync_directory(directory.parent_path());
  });
}

}  // namespace convoy
