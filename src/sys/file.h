// Files: whole reads and writes, durable replacement, directories.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "sys/unique_fd.h"

namespace convoy {

// open(2) with O_CLOEXEC added. Throws kNotFound for ENOENT, else as system_error does, naming the
// path.
UniqueFd open_file(const std::filesystem::path& path, int flags, unsigned mode = 0);

// Fills `out` from `offset`. Throws kIo, also when the file ends before.
void read_exactly_at(int fd, std::span<std::byte> out, std::uint64_t offset);

// Writes all of `data` at `offset`. Throws kNoSpace or kIo.
void write_all_at(int fd, std::span<const std::byte> data, std::uint64_t offset);

// Writes all of `data` at the file's own position, which pipes and sockets have as well.
void write_all(int fd, std::span<const std::byte> data);

// The content of a file, of unknown size too (those in /proc say 0).
std::string read_text_file(const std::filesystem::path& path);

void fsync_file(int fd, const std::filesystem::path& path_for_messages);

// Makes what was created, renamed or removed in `directory` durable.
void fsync_directory(const std::filesystem::path& directory);

// Makes `directory` and its missing parents, each durable.
void make_directories(const std::filesystem::path& directory);

}  // namespace convoy
