#include "base/error.h"

#include <array>
#include <cerrno>
#include <system_error>

namespace convoy {
namespace {

constexpr std::array<std::pair<ErrorKind, std::string_view>, 11> kNames = {{
    {ErrorKind::kInvalidArgument, "invalid argument"},
    {ErrorKind::kNotFound, "not found"},
    {ErrorKind::kAlreadyExists, "already exists"},
    {ErrorKind::kBusy, "busy"},
    {ErrorKind::kNoSpace, "no space"},
    {ErrorKind::kCorrupt, "corrupt"},
    {ErrorKind::kIo, "I/O"},
    {ErrorKind::kUnsupported, "unsupported"},
    {ErrorKind::kUnavailable, "unavailable"},
    {ErrorKind::kCancelled, "cancelled"},
    {ErrorKind::kInternal, "internal"},
}};

ErrorKind kind_of(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return ErrorKind::kNoSpace;
    case EBUSY:
      return ErrorKind::kBusy;
    default:
      return ErrorKind::kIo;
  }
}

}  // namespace

std::string_view to_string(ErrorKind kind) {
  for (const auto& [candidate, name] : kNames) {
    if (candidate == kind) return name;
  }
  return "internal";
}

ErrorKind error_kind_from_string(std::string_view name) {
  for (const auto& [kind, candidate] : kNames) {
    if (candidate == name) return kind;
  }
  return ErrorKind::kInternal;
}

Error system_error(int error_number, std::string_view what) {
  return {kind_of(error_number), "{}: {}", what, std::generic_category().message(error_number)};
}

}  // namespace convoy
