// Points in time as the product stores and shows them.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace convoy {

// Wall-clock time to the millisecond, UTC.
using Timestamp = std::chrono::sys_time<std::chrono::milliseconds>;

Timestamp now();

// "Mon Nov 23 00:13:37 +0000 2026": the form of every time in the JSON that users read.
std::string format_for_user(Timestamp time);

// The inverse, to the second; nothing for text of any other form.
std::optional<Timestamp> parse_for_user(std::string_view text);

// "2026-11-23T00:13:37.123Z" (RFC 3339), the form in backup stores.
std::string format_rfc3339(Timestamp time);

// The inverse of format_rfc3339; nothing for text of any other form.
std::optional<Timestamp> parse_rfc3339(std::string_view text);

}  // namespace convoy
