// Child processes with a time limit.
#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <vector>

namespace convoy {

// Runs a program and waits for its end, at most `timeout`; then it is killed, as it is when this
// process ends before. Its standard input is /dev/null, its output is collected (the last 64 KiB)
// and given back. `arguments[0]` is searched on PATH and in the system's sbin directories. Throws
// kNotFound if there is no such program, kUnavailable after a timeout, kCancelled if it was killed
// because a stop was requested, kIo if it ended with another status than 0: each names the program,
// and the last shows what it printed.
std::string run_command(const std::vector<std::string>& arguments,
                        std::chrono::milliseconds timeout, const std::stop_token& stop = {});

}  // namespace convoy
