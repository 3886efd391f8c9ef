#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "base/error.h"

namespace convoy {

void start_log(const std::string& file, LogLevel level) {
  try {
    auto logger =
        file.empty() ? spdlog::stderr_logger_mt("convoy") : spdlog::basic_logger_mt("convoy", file);
    spdlog::set_default_logger(std::move(logger));
  } catch (const spdlog::spdlog_ex& error) {
    throw Error(ErrorKind::kIo, "can't write the log file '{}': {}", file, error.what());
  }
  spdlog::set_level(level == LogLevel::kDebug ? spdlog::level::debug : spdlog::level::info);
  // A line that is still in memory is lost in just the crash that it would explain.
  spdlog::flush_on(spdlog::level::trace);
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
}

}  // namespace convoy
