// Where the daemon's log goes. The lines themselves are written with spdlog's functions.
#pragma once

#include <string>

namespace convoy {

enum class LogLevel { kInfo, kDebug };

// Sends the process's log to `file`, appending, or to standard error if `file` is empty. Call once,
// before other threads exist. Throws kIo if the file can't be opened.
void start_log(const std::string& file, LogLevel level);

}  // namespace convoy
