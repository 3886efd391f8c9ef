// The project's one exception type. An error has a kind, on which callers decide, and a message, on
// which people act.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace convoy {

// A kind exists only where somebody decides differently on it: the daemon's HTTP status, the
// client's exit code, a retry.
enum class ErrorKind {
  kInvalidArgument,
  kNotFound,
  kAlreadyExists,
  kBusy,
  kNoSpace,
  kCorrupt,
  kIo,
  kUnsupported,
  kUnavailable,
  kCancelled,
  kInternal,
};

// The kind's name on the wire and in logs, such as "not found".
std::string_view to_string(ErrorKind kind);

// The inverse of to_string; kInternal for a name it doesn't know, since that is what an unknown
// failure is.
ErrorKind error_kind_from_string(std::string_view name);

// How the daemon's API and the command line end with an error of this kind. Convoy's commands ended
// with 1 whatever went wrong, and scripts ask for that; only an interrupted one is told apart, as
// shells do.
int http_status(ErrorKind kind);
int exit_status(ErrorKind kind);

class Error : public std::exception {
 public:
  template <typename... Args>
  Error(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args)
      : kind_(kind), message_(fmt::format(format, std::forward<Args>(args)...)) {}

  ErrorKind kind() const { return kind_; }
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

  // Puts "context: " before the message.
  void add_context(std::string_view context) {
    message_ = fmt::format("{}: {}", context, message_);
  }

 private:
  ErrorKind kind_;
  std::string message_;
};

// The error for a system call that failed with `error_number`: "<what>: <strerror>". No space left
// (or quota) and busy keep their kinds; all others are kIo.
Error system_error(int error_number, std::string_view what);

// Runs `action`; an Error that comes out of it has "context: " put before its message.
template <typename Action>
auto with_context(std::string_view context, Action&& action) {
  try {
    return std::forward<Action>(action)();
  } catch (Error& error) {
    error.add_context(context);
    throw;
  }
}

}  // namespace convoy
