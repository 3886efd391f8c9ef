#include "base/error.h"

#include <array>
#include <cerrno>
#include <system_error>

namespace convoy {
namespace {

struct KindRow {
  ErrorKind kind;
  std::string_view name;
  int http_status;
  int exit_status;
};

constexpr std::array<KindRow, 11> kKinds = {{
    {ErrorKind::kInvalidArgument, "invalid argument", 400, 1},
    {ErrorKind::kNotFound, "not found", 404, 1},
    {ErrorKind::kAlreadyExists, "already exists", 409, 1},
    {ErrorKind::kBusy, "busy", 409, 1},
    {ErrorKind::kNoSpace, "no space", 507, 1},
    {ErrorKind::kCorrupt, "corrupt", 500, 1},
    {ErrorKind::kIo, "I/O", 500, 1},
    {ErrorKind::kUnsupported, "unsupported", 501, 1},
    {ErrorKind::kUnavailable, "unavailable", 503, 1},
    {ErrorKind::kCancelled, "cancelled", 499, 130},
    {ErrorKind::kInternal, "internal", 500, 1},
}};

const KindRow& row_of(ErrorKind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row;
  }
  return kKinds.back();
}

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
  return row_of(kind).name;
}
int http_status(ErrorKind kind) {
  return row_of(kind).http_status;
}
int exit_status(ErrorKind kind) {
  return row_of(kind).exit_status;
}

ErrorKind error_kind_from_string(std::string_view name) {
  for (const KindRow& row : kKinds) {
    if (row.name == name) return row.kind;
  }
  return ErrorKind::kInternal;
}

Error system_error(int error_number, std::string_view what) {
  return {kind_of(error_number), "{}: {}", what, std::generic_category().message(error_number)};
}

}  // namespace convoy
