// Which block devices will do for a pool. All throw kInvalidArgument, or kBusy, with one sentence
// that names `option` and says what to do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include <sys/types.h>

namespace convoy {

dev_t require_block_device(const char* option, const std::filesystem::path& path);
void require_free(const char* option, const std::filesystem::path& path);
// At least so many bytes.
void require_size(const char* option, const std::filesystem::path& path, std::uint64_t least);

// The devices of a new pool hold nothing that anybody could miss.
void require_no_data(const std::filesystem::path& data_device,
                     const std::filesystem::path& metadata_device);

enum class Growth { kNo, kAllowed };

// The device to use in a later start: the one that is given, or the one that is known. Its size is
// what it is known by, here; the pool's transaction id tells the rest. One that is given may have
// grown, or be a larger one that the content was copied to, where that is allowed.
std::filesystem::path choose_device(const char* option,
                                    const std::optional<std::filesystem::path>& given,
                                    const std::filesystem::path& known, std::uint64_t known_size,
                                    Growth growth);

// `path` is what the running pool uses.
void check_active(const char* option, const std::filesystem::path& path, dev_t used);

}  // namespace convoy
