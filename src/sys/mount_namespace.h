// Mounting file systems, and what is mounted, in the daemon's mount namespace or in another one.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

namespace convoy {

// One line of /proc/<pid>/mountinfo (proc(5)).
struct Mount {
  dev_t device = 0;
  std::filesystem::path root;    // what of the file system is mounted; "/" if all of it
  std::filesystem::path target;  // where
};

// Parses mountinfo; octal escapes in paths are undone. Lines that don't have the kernel's form are
// left out.
std::vector<Mount> parse_mountinfo(std::string_view text);

// What mount(2) takes them as: flags of the kernel (MS_NOATIME), and text for the file system.
struct MountOptions {
  unsigned long flags = 0;
  std::string data;
};

// Throws kInvalidArgument for text that mount(8) would not take after -o.
MountOptions parse_mount_options(const std::string& options);

// All calls are thread-safe.
class MountNamespace {
 public:
  // The namespace in the file `path`, such as /proc/1/ns/mnt; the process's own if it is empty.
  // Throws kInvalidArgument if the file is no mount namespace.
  explicit MountNamespace(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }

  // mount(2). `options` are as mount(8) takes them after -o, such as "noatime,data=writeback".
  // Throws kInvalidArgument if the file system or the kernel refuses them, kIo else.
  void mount(const std::filesystem::path& device, const std::filesystem::path& target,
             const std::string& filesystem, const std::string& options) const;

  // umount2(2). Throws kBusy if somebody uses the mount, kIo else. A target that is not a mount
  // point is no error.
  void unmount(const std::filesystem::path& target) const;

  // All that is mounted, in the kernel's order.
  std::vector<Mount> mounts() const;

  // Writes what the file system mounted at `target` has in memory (syncfs(2)).
  void sync(const std::filesystem::path& target) const;

  // Gives the free space among bytes [begin, end) of the file system on `device`, mounted at
  // `target`, back to the device (FITRIM, ioctl_fitrim(2)); returns how many bytes that was. Throws
  // kUnavailable if another file system is mounted there, kUnsupported if this one can't.
  std::uint64_t trim(const std::filesystem::path& target, dev_t device, std::uint64_t begin,
                     std::uint64_t end) const;

  // The path without symbolic links, "." and ".."; its last parts need not exist.
  std::filesystem::path canonical(const std::filesystem::path& path) const;

  bool is_directory(const std::filesystem::path& path) const;

  // Makes a directory with its parents as make_directories does, or removes an empty one, durably,
  // if it is there, as the namespace sees the path.
  void make_directories(const std::filesystem::path& directory) const;
  void remove_directory(const std::filesystem::path& directory) const;

 private:
  // Runs `action` on a thread in the namespace. A thread of its own, since setns(2) to a mount
  // namespace wants a thread that shares its file system attributes with no other.
  void run(const std::function<void()>& action) const;

  std::filesystem::path path_;
};

}  // namespace convoy
