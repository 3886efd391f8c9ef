#include "base/log.h"

#include <memory>
#include <string>

#include <nlohmann/json.hpp>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "base/error.h"

namespace convoy {
namespace {

// The message as a JSON string.
class JsonMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    // Names and what programs print may not be UTF-8.
    const std::string text =
        nlohmann::json(std::string(message.payload.begin(), message.payload.end()))
            .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<JsonMessage>();
  }
};

}  // namespace

void start_log(const std::string& file, LogFormat format, LogLevel level) {
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
  if (format == LogFormat::kText) {
    spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    return;
  }
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<JsonMessage>('*').set_pattern(
      R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":%*})");
  spdlog::set_formatter(std::move(formatter));
}

}  // namespace convoy
