#include <charconv>
#include <sstream>

#include "base/error.h"
#include "devmapper/thin_pool.h"

namespace convoy {
namespace {

struct Fraction {
  std::uint64_t used = 0;
  std::uint64_t total = 0;
};

Fraction parse_fraction(const std::string& word) {
  Fraction fraction;
  char slash = 0;
  std::istringstream in(word);
  in >> fraction.used >> slash >> fraction.total;
  if (!in || slash != '/') throw Error(ErrorKind::kCorrupt, "'{}' is not a used/total pair", word);
  return fraction;
}

PoolStatus::Mode parse_mode(const std::string& word) {
  if (word == "rw") return PoolStatus::Mode::kReadWrite;
  if (word == "ro") return PoolStatus::Mode::kReadOnly;
  if (word == "out_of_data_space") return PoolStatus::Mode::kOutOfDataSpace;
  throw Error(ErrorKind::kCorrupt, "unknown pool mode '{}'", word);
}

}  // namespace

PoolStatus parse_pool_status(const std::string& parameters) {
  PoolStatus status;
  // dm-thin.c, pool_status: a failed pool says just "Fail", and one whose status can't be read
  // "Error".
  if (parameters.starts_with("Fail") || parameters.starts_with("Error")) {
    status.mode = PoolStatus::Mode::kFailed;
    return status;
  }
  // 5 41/1024 12/640 - rw discard_passdown error_if_no_space - 1024
  std::istringstream in(parameters);
  std::string metadata, data, held, mode, discards, no_space, check;
  in >> status.transaction_id >> metadata >> data >> held >> mode >> discards >> no_space >> check;
  if (!in)
    throw Error(ErrorKind::kCorrupt, "the pool's status '{}' has too few fields", parameters);
  const Fraction metadata_blocks = parse_fraction(metadata);
  const Fraction data_blocks = parse_fraction(data);
  status.used_metadata_blocks = metadata_blocks.used;
  status.total_metadata_blocks = metadata_blocks.total;
  status.used_data = {data_blocks.used};
  status.total_data = {data_blocks.total};
  if (held != "-" && !(std::istringstream(held) >> status.metadata_snapshot))
    throw Error(ErrorKind::kCorrupt, "'{}' is not a block of the pool's metadata", held);
  status.mode = parse_mode(mode);
  status.needs_check = check == "needs_check";
  return status;
}

const char* to_text(PoolStatus::Mode mode) {
  switch (mode) {
    case PoolStatus::Mode::kReadWrite:
      return "read-write";
    case PoolStatus::Mode::kReadOnly:
      return "read-only";
    case PoolStatus::Mode::kOutOfDataSpace:
      return "out of data space";
    case PoolStatus::Mode::kFailed:
      return "failed";
  }
  return "";
}

void require_writable(const PoolStatus& status) {
  switch (status.mode) {
    case PoolStatus::Mode::kReadWrite:
    case PoolStatus::Mode::kOutOfDataSpace:
      return;  // its metadata can still be changed
    case PoolStatus::Mode::kReadOnly:
      throw Error(ErrorKind::kUnavailable,
                  "the pool is read-only: its metadata device is full, or one of its two devices "
                  "could not be written; volumes can be read, and how to repair it is in "
                  "docs/operations.md");
    case PoolStatus::Mode::kFailed:
      throw Error(ErrorKind::kUnavailable,
                  "the pool has failed: its metadata device can't be used; how to repair it is in "
                  "docs/operations.md");
  }
}

}  // namespace convoy
