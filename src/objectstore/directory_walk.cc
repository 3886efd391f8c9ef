#include "objectstore/directory_walk.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "objectstore/object_store.h"

namespace convoy {
namespace {

constexpr int kOpenDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

// How often making a directory is begun anew because somebody removes it, empty, just then. One
// round is lost per removal of a neighbour's last object, so more than a few in a row don't happen.
constexpr int kMakeAttempts = 1000;

// What NFS leaves of a file that is removed or replaced while this host has it open.
constexpr std::string_view kRemovedOnNfs = ".nfs";

// The first component of `path`, which is cut off from it.
std::string take_component(std::string_view& path) {
  const std::size_t slash = path.find('/');
  std::string component(path.substr(0, slash));
  path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  return component;
}

// True for an object in the place of a directory: there is nothing under it.
bool is_file(int parent, const std::string& name) {
  struct stat info = {};
  return ::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode);
}

UniqueFd open_child(int parent, const std::string& name) {
  UniqueFd child(::openat(parent, name.c_str(), kOpenDirectory));
  if (child || errno == ENOENT) return child;
  throw_stale_or(fmt::format("can't open the directory {}", name));
}

// No descriptor if the parent, or the child just made, was removed by somebody else.
UniqueFd make_child(int parent, const std::string& name) {
  UniqueFd child = open_child(parent, name);
  if (child) return child;
  if (::mkdirat(parent, name.c_str(), 0755) == 0) {
    crash_point("directory made");
  } else if (errno == ENOENT) {
    return {};
  } else if (errno != EEXIST) {
    throw_stale_or(fmt::format("can't make the directory {}", name));
  }
  // Also when another has just made it, since that one may not have come to the sync yet.
  if (::fsync(parent) != 0) throw_stale_or(fmt::format("can't sync beside {}", name));
  return open_child(parent, name);
}

UniqueFd try_make_directory(int root, std::string_view directory) {
  UniqueFd current(::openat(root, ".", kOpenDirectory));
  if (!current) throw_stale_or("can't open the store's directory");
  while (current && !directory.empty()) {
    const std::string name = take_component(directory);
    current = make_child(current.get(), name);
  }
  return current;
}

// Into the order of the keys. A directory counts with the '/' that its keys have there: "a-b" and
// "a.b" come before "a/b".
void sort_as_keys(std::vector<DirectoryEntry>& entries) {
  const auto directories = [&](auto change) {
    for (DirectoryEntry& entry : entries) {
      if (entry.type == DirectoryEntry::Type::kDirectory) change(entry.name);
    }
  };
  directories([](std::string& name) { name.push_back('/'); });
  std::ranges::sort(entries, {}, &DirectoryEntry::name);
  directories([](std::string& name) { name.pop_back(); });
}

}  // namespace

void throw_stale_or(std::string_view what) {
  if (errno == ESTALE) throw Stale();
  throw system_error(errno, what);
}

SplitKey split_key(std::string_view key) {
  const std::size_t slash = key.rfind('/');
  if (slash == std::string_view::npos) return {"", key};
  return {key.substr(0, slash), key.substr(slash + 1)};
}

UniqueFd open_directory(int root, std::string_view directory) {
  UniqueFd current(::openat(root, ".", kOpenDirectory));
  if (!current && errno != ENOENT) throw_stale_or("can't open the store's directory");
  while (current && !directory.empty()) {
    const std::string name = take_component(directory);
    if (is_file(current.get(), name)) return {};
    current = open_child(current.get(), name);
  }
  return current;
}

UniqueFd make_directory(int root, std::string_view directory) {
  for (int attempt = 0; attempt < kMakeAttempts; ++attempt) {
    UniqueFd made = try_make_directory(root, directory);
    if (made) return made;
  }
  throw Error(ErrorKind::kIo, "the directory {} is removed whenever it is made", directory);
}

void remove_empty_directories(int root, std::string_view directory) {
  while (!directory.empty()) {
    const SplitKey split = split_key(directory);
    const UniqueFd parent = open_directory(root, split.directory);
    if (!parent) return;
    if (::unlinkat(parent.get(), std::string(split.name).c_str(), AT_REMOVEDIR) != 0) return;
    crash_point("directory removed");
    ::fsync(parent.get());  // if it fails, a power cut brings back an empty directory
    directory = split.directory;
  }
}

namespace {

Timestamp to_timestamp(const timespec& time) {
  return Timestamp(std::chrono::floor<std::chrono::milliseconds>(
      std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec)));
}

}  // namespace

std::optional<DirectoryEntry> examine_entry(int directory, const std::string& name) {
  struct stat info = {};
  if (::fstatat(directory, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return std::nullopt;  // removed since it was read
    throw_stale_or(fmt::format("can't examine {}", name));
  }
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return std::nullopt;
  return DirectoryEntry{.name = name,
                        .type = S_ISDIR(info.st_mode) ? DirectoryEntry::Type::kDirectory
                                                      : DirectoryEntry::Type::kFile,
                        .size = static_cast<std::uint64_t>(info.st_size),
                        .written = to_timestamp(info.st_mtim),
                        .modified = to_timestamp(info.st_ctim)};
}

DirectoryContent read_directory(int directory) {
  // fdopendir takes its descriptor over and moves the position, so it gets one of its own.
  const int own = ::openat(directory, ".", kOpenDirectory);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(own < 0 ? nullptr : ::fdopendir(own),
                                                   &::closedir);
  if (!stream) {
    if (errno == ENOENT) return {};  // removed since it was opened
    throw_stale_or("can't open a directory");
  }
  DirectoryContent content;
  while (true) {
    errno = 0;
    const dirent* const found = ::readdir(stream.get());
    if (found == nullptr && errno != 0) throw_stale_or("can't read a directory");
    if (found == nullptr) break;
    const std::string_view name = found->d_name;
    const bool temporary = name.find(kTemporaryMark) != std::string_view::npos;
    if (!temporary && (!is_key_component(name) || name.starts_with(kRemovedOnNfs))) continue;
    auto entry = examine_entry(directory, found->d_name);
    if (entry) (temporary ? content.temporary : content.entries).push_back(std::move(*entry));
  }
  sort_as_keys(content.entries);
  return content;
}

}  // namespace convoy
