// The process's environment, or what a test has in its place.
#pragma once

#include <cstdlib>
#include <functional>
#include <optional>
#include <string>

namespace convoy {

// The value of a variable; nothing if it is not set or empty.
using Environment = std::function<std::optional<std::string>(const char* name)>;

inline std::optional<std::string> process_environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

}  // namespace convoy
