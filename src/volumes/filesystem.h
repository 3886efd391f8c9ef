// The file systems that volumes can have.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
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

// The least that can be trimmed of a file system at a time, of those on `device`. xfs before Linux
// 6.11 discards and counts free space whole that only begins or ends in the range, but none of it
// is in two allocation groups (fs/xfs/xfs_discard.c): of a larger step, each group would be one.
// Throws kCorrupt if the superblock makes no sense.
std::uint64_t least_trim(std::string_view type, const std::filesystem::path& device);

// What volumes of this type are mounted with, as mount(8) takes it after -o: our options, then the
// volume's own.
std::string mount_options(std::string_view type, const std::string& own);

}  // namespace convoy
