// SHA-256, which identifies chunks and tree nodes in a store.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace convoy {

using Digest = std::array<std::uint8_t, 32>;

// SHA-256 of `bytes`. Thread-safe.
Digest sha256(std::span<const std::byte> bytes);

// In lower-case hex.
std::string to_hex(std::span<const std::uint8_t> bytes);

}  // namespace convoy
