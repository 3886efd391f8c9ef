// Whole objects of text, compressed by zstd.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace convoy {

// One zstd frame that tells how long the text is.
std::vector<std::byte> compress_text(std::string_view text);

// The inverse. Throws kCorrupt if `bytes` are anything else, or the text is longer than
// `max_length`: no more memory than that is taken, whatever they claim.
std::string decompress_text(std::span<const std::byte> bytes, std::uint64_t max_length);

}  // namespace convoy
