// The file systems that volumes can have.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace convoy {

// Throws kInvalidArgument, naming those there are, if `type` is none of ours.
void check_filesystem(std::string_view type);

// Throws kInvalidArgument if a volume of `size` bytes is too small for `type`.
void check_filesystem_size(std::string_view type, std::uint64_t size);

// Makes a file system on a device that reads as zeros, writing as little as it can, and that into
// as few pool blocks as it can. `options` are more words for mkfs, separated by spaces. Throws as
// run_command does.
void make_filesystem(const std::string& type, const std::filesystem::path& device,
                     const std::string& options, std::chrono::milliseconds timeout);

// What volumes of this type are mounted with, as mount(8) takes it after -o: our options, then the
// volume's own.
std::string mount_options(std::string_view type, const std::string& own);

}  // namespace convoy
