// Where the daemon's log goes. The lines themselves are written with spdlog's functions.
#pragma once

#include <string>

namespace convoy {

enum class LogLevel { kInfo, kDebug };
// A line of text, or a line of JSON {"time", "level", "message"}.
enum class LogFormat { kText, kJson };

// Sends the process's log to `file`, appending, or to standard error if `file` is empty. Call once,
// before other threads exist. Throws kIo if the file can't be opened.
void start_log(const std::string& file, LogFormat format, LogLevel level);

}  // namespace convoy
