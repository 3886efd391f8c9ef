#include "base/log.h"

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "base/error.h"

namespace convoy {
namespace {

// The message on one line: whoever chooses a name, or writes a program that we run, must not be
// able to write lines of the log.
std::string escape(std::string_view text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      line += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += c;
    }
  }
  return line;
}

// Names and what programs print may not be UTF-8.
std::string to_json(std::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class Message : public spdlog::custom_flag_formatter {
 public:
  explicit Message(LogFormat format) : format_(format) {}

  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const std::string plain = without_secrets({message.payload.data(), message.payload.size()});
    const std::string text = format_ == LogFormat::kJson ? to_json(plain) : escape(plain);
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<Message>(format_);
  }

 private:
  LogFormat format_;
};

// What stands between a URL's "://" and its query, without user and password.
void append_place(std::string_view place, std::string& result) {
  const std::string_view authority = place.substr(0, place.find('/'));
  const std::size_t colon = authority.find(':');
  std::size_t at = authority.rfind('@');
  // A secret key may hold a slash, and was not encoded: then what looks like a port is none.
  const bool is_port =
      colon != std::string_view::npos &&
      authority.find_first_not_of("0123456789", colon + 1) == std::string_view::npos;
  if (at == std::string_view::npos && !is_port) at = place.rfind('@');
  // "s3://bucket@region" has no colon, user:password has.
  if (at != std::string_view::npos && colon < at) {
    result += "***";
    place.remove_prefix(at);
  }
  result.append(place);
}

// Tokens and signatures stand in queries; ours name a backup and its volume.
void append_query(std::string_view query, std::string& result) {
  while (!query.empty()) {
    const std::string_view parameter = query.substr(0, query.find('&', 1));
    query.remove_prefix(parameter.size());
    const std::string_view name = parameter.substr(1, parameter.find('=') - 1);
    if (name == "backup" || name == "volume") {
      result.append(parameter);
    } else {
      result.append(parameter.substr(0, 1)).append(name).append("=***");
    }
  }
}

}  // namespace

std::string without_secrets(std::string_view text) {
  constexpr std::string_view kSchemeEnd = "://";
  std::string result;
  while (true) {
    const std::size_t scheme = text.find(kSchemeEnd);
    if (scheme == std::string_view::npos) return result.append(text);
    const std::size_t begin = scheme + kSchemeEnd.size();
    result.append(text.substr(0, begin));
    text.remove_prefix(begin);
    const std::string_view url =
        text.substr(0, std::min(text.find_first_of(" '\"\n"), text.find(kSchemeEnd)));
    const std::string_view place = url.substr(0, url.find('?'));
    append_place(place, result);
    append_query(url.substr(place.size()), result);
    text.remove_prefix(url.size());
  }
}

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
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<Message>('*', format)
      .set_pattern(format == LogFormat::kText
                       ? "%Y-%m-%dT%H:%M:%S.%e%z %l %*"
                       : R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":%*})");
  spdlog::set_formatter(std::move(formatter));
}

}  // namespace convoy
