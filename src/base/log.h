// Where the daemon's log goes. The lines themselves are written with spdlog's functions.
#pragma once

#include <string>
#include <string_view>

namespace convoy {

enum class LogLevel { kInfo, kDebug };
// A line of text, or a line of JSON {"time", "level", "message"}. Either way a message is one line,
// without_secrets.
enum class LogFormat { kText, kJson };

// The text with "***" for user and password of every URL in it.
std::string without_secrets(std::string_view text);

// Sends the process's log to `file`, appending, or to standard error if `file` is empty. Call once,
// before other threads exist. Throws kIo if the file can't be opened.
void start_log(const std::string& file, LogFormat format, LogLevel level);

}  // namespace convoy
