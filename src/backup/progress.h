// How far a long piece of work is.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

#include "base/error.h"

namespace convoy {

struct Progress {
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;  // known from the start
};

// Called now and then by the thread that works, last when all is done. May be empty. What it throws
// ends the work.
using ProgressSink = std::function<void(const Progress&)>;

// Throws kCancelled if a stop was requested.
inline void check_stop(const std::stop_token& stop, std::string_view work) {
  if (stop.stop_requested()) throw Error(ErrorKind::kCancelled, "the {} was cancelled", work);
}

}  // namespace convoy
