// Sizes as people write and read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace convoy {

// The bytes that `text` says: a whole number, alone or with one of the suffixes K, M, G, T, P of
// either case (powers of 1024), an optional "iB" or "B" behind it. Throws kInvalidArgument, naming
// the text and the form, for anything else and for what does not fit in 64 bits.
std::uint64_t parse_size(std::string_view text);

// For people: "512 B", "1.5 KiB", "20.0 GiB".
std::string format_size(std::uint64_t bytes);

}  // namespace convoy
