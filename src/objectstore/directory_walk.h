// Directories under a root, reached by descriptors one component at a time, never through a
// symbolic link.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "sys/unique_fd.h"

namespace convoy {

// Thrown by what is below for ESTALE: on NFS, what is open was removed or replaced since then, by
// this host or another. Or the server has lost it: so it says nothing of what is there, and the way
// from the root has to be gone again.
struct Stale {};

// Throws Stale or system_error, as errno has it.
[[noreturn]] void throw_stale_or(std::string_view what);

// An object's key, cut before its last component.
struct SplitKey {
  std::string_view directory;  // empty, or components with '/' between them
  std::string_view name;
};
SplitKey split_key(std::string_view key);

// The directory under `root`; no descriptor if it does not exist.
UniqueFd open_directory(int root, std::string_view directory);

// The same, but makes what is missing, durably. The directory may be gone again when the caller
// uses it, if another removed it while it was empty: creating a file in it then fails with
// ENOENT, or ESTALE.
UniqueFd make_directory(int root, std::string_view directory);

// Removes `directory` and then its parents, up to the first that is not empty. What can't be
// removed stays: an empty directory harms nobody.
void remove_empty_directories(int root, std::string_view directory);

struct DirectoryEntry {
  enum class Type { kFile, kDirectory };

  std::string name;
  Type type = Type::kFile;
  std::uint64_t size = 0;
  Timestamp written;  // its content
  // When it got its name: a rename changes this time (st_ctime), and not the other. So an object's
  // time is never before it was there.
  Timestamp modified;
};

// Nothing if there is no such file or directory, or something that is neither.
std::optional<DirectoryEntry> examine_entry(int directory, const std::string& name);

struct DirectoryContent {
  std::vector<DirectoryEntry> entries;    // those that can be part of a key, in the order of keys
  std::vector<DirectoryEntry> temporary;  // files with the mark of a temporary name
};
DirectoryContent read_directory(int directory);

// Marks a file that is being written. No key has it.
inline constexpr char kTemporaryMark = '~';

}  // namespace convoy
