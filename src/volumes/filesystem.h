// The file systems that volumes can have.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace convoy {

// Throws kInvalidArgument, naming those there are, if `type` is none of ours.
void check_filesystem(std::string_view type);

// Throws kInvalidArgument if a volume of `size` bytes is too small for `type`.
void check_filesystem_size(std::string_view type, std::uint64_t size);

// What make_filesystem runs, without the device.
std::vector<std::string> mkfs_command(const std::string& type, const std::string& options);

// Makes a file system on a device that reads as zeros, writing as little as it can, and that into
// as few pool blocks as it can. `options` are more words for mkfs, separated by spaces; its -E is
// put together with ours. Throws as run_command does.
void make_filesystem(const std::string& type, const std::filesystem::path& device,
                     const std::string& options, std::chrono::milliseconds timeout,
                     const std::stop_token& stop = {});

// How many bytes of the file system on `device` should be trimmed at a time, or a multiple of it.
// xfs before Linux 6.11 discards and counts free space as a whole that only begins or ends in the
// range (fs/xfs/xfs_discard.c); none of it is in two allocation groups, so it is trimmed by these.
// 1 for others. Whatever the catalog says: users may have made a file system of their own.
std::uint64_t least_trim(const std::filesystem::path& device);

struct FoundFilesystem {
  std::string type;
  std::uint64_t size = 0;  // in bytes, as it says
};
// The file system of ours that `device` begins with; nothing if it has none. Throws kIo.
std::optional<FoundFilesystem> find_filesystem(const std::filesystem::path& device);

// What volumes of this type are mounted with, as mount(8) takes it after -o: our options, then the
// volume's own.
std::string mount_options(std::string_view type, const std::string& own);

}  // namespace convoy
