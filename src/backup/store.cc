#include "backup/store.h"

#include <nlohmann/json.hpp>

#include "backup/json_fields.h"
#include "backup/layout.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/time.h"

namespace convoy {
namespace {

constexpr char kDigestName[] = "sha256";
constexpr char kNoEncryption[] = "none";

void check_parameter(const JsonFields& fields, const std::string& name, std::string_view known) {
  const std::string found = fields.text(name, 64);
  if (found != known) {
    throw Error(ErrorKind::kUnsupported, "the store's {} is '{}', and this program knows '{}' only",
                name, found, known);
  }
}

// The UUID of the store; nothing if there is none.
std::optional<Uuid> read_store(ObjectStore& objects) {
  nlohmann::json json;
  try {
    json = get_json(objects, kStoreKey);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    return std::nullopt;
  }
  return with_context(kStoreKey, [&] {
    const JsonFields fields(json);
    fields.check_version();
    check_parameter(fields, "digest", kDigestName);
    check_parameter(fields, "encryption", kNoEncryption);
    return fields.uuid("uuid");
  });
}

// Throws if volumes are there without the store.json that says how to read them. That one is put
// before anything else.
void check_not_lost(ObjectStore& objects) {
  if (!objects.list_directories(kStoreDirectory).empty() && !objects.head(kStoreKey)) {
    throw Error(ErrorKind::kCorrupt, "the destination holds backups, but {} is lost", kStoreKey);
  }
}

Uuid create_store(ObjectStore& objects) {
  const nlohmann::json json = {{"version", 1},
                               {"uuid", Uuid::generate().to_string()},
                               {"digest", kDigestName},
                               {"encryption", kNoEncryption},
                               {"created", format_rfc3339(now())}};
  objects.put_if_absent(kStoreKey, as_bytes(json.dump() + '\n'));
  // Read back, since another may have been first.
  const auto uuid = read_store(objects);
  if (!uuid)
    throw Error(ErrorKind::kUnavailable, "{} was removed just after it was made", kStoreKey);
  return *uuid;
}

void check_expected(const Uuid& found, const std::optional<Uuid>& expected) {
  if (!expected || found == *expected) return;
  throw Error(
      ErrorKind::kUnavailable,
      "the destination held the backup store {} and now holds {}: is the right one mounted? Is it "
      "the same server?",
      expected->to_string(), found.to_string());
}

}  // namespace

Store Store::open(ObjectStore& objects, const StoreTimes& times) {
  const auto uuid = read_store(objects);
  if (!uuid) {
    check_not_lost(objects);
    throw Error(ErrorKind::kNotFound, "the destination holds no backup store");
  }
  return {objects, *uuid, times};
}

Store Store::open_or_create(ObjectStore& objects, const std::optional<Uuid>& expected,
                            const StoreTimes& times) {
  auto uuid = read_store(objects);
  if (!uuid && expected) {
    throw Error(ErrorKind::kUnavailable,
                "the destination held the backup store {} and is now empty: is it mounted? Is it "
                "the same server? If it was emptied on purpose, give another directory in it",
                expected->to_string());
  }
  if (!uuid) {
    check_not_lost(objects);
    uuid = create_store(objects);
  }
  check_expected(*uuid, expected);
  return {objects, *uuid, times};
}

}  // namespace convoy
