// CRC-32C (Castagnoli), as the kernel's persistent-data library uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace convoy::thinmeta {

// The register after `bytes`, started with all ones and, unlike in iSCSI or ext4, not inverted at
// the end: what the kernel's crc32c(~0, ...) gives.
std::uint32_t crc32c(std::span<const std::byte> bytes);

}  // namespace convoy::thinmeta
