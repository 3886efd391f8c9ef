#include "backup/lease.h"

#include <set>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/json_fields.h"
#include "backup/layout.h"
#include "base/bytes.h"
#include "base/error.h"

namespace convoy {
namespace {

// A backup builds on one parent; a later program may name a few more.
constexpr std::size_t kMaxBuildsOn = 1000;

std::string encode(const LeaseRecord& record) {
  nlohmann::json builds_on = nlohmann::json::array();
  for (const Uuid& backup : record.builds_on) builds_on.push_back(backup.to_string());
  const nlohmann::json json = {
      {"version", 1}, {"backup", record.backup.to_string()}, {"builds_on", builds_on}};
  return json.dump() + '\n';
}

LeaseRecord parse(const nlohmann::json& json) {
  const JsonFields fields(json);
  fields.check_version();
  LeaseRecord record{.backup = fields.uuid("backup"), .builds_on = {}};
  const nlohmann::json& builds_on = fields.field("builds_on");
  if (!builds_on.is_array() || builds_on.size() > kMaxBuildsOn) {
    fields.refuse("builds_on", "is not a list of backups");
  }
  for (const nlohmann::json& element : builds_on) {
    const auto backup =
        element.is_string() ? Uuid::parse(element.get_ref<const std::string&>()) : std::nullopt;
    if (!backup) fields.refuse("builds_on", "is not a list of backups");
    record.builds_on.push_back(*backup);
  }
  return record;
}

}  // namespace

Lease::Lease(const Store& store, const Uuid& lineage, const LeaseRecord& record)
    : store_(store),
      lineage_(lineage),
      backup_(record.backup),
      key_(json_key(lineage, LineagePart::kLeases, record.backup)),
      text_(encode(record)) {
  const std::scoped_lock lock(mutex_);
  try {
    put_locked();
  } catch (const Error&) {
    try {
      store_.objects().remove(key_);
    } catch (const Error& error) {
      spdlog::warn("can't remove a lease that was not needed: {}", error.message());
    }
    throw;
  }
  renewal_ = std::jthread([this](const std::stop_token& stop) { renew_until_stopped(stop); });
}

Lease::~Lease() = default;

void Lease::build_on(const std::vector<Uuid>& fewer) {
  const std::scoped_lock lock(mutex_);
  text_ = encode({.backup = backup_, .builds_on = fewer});
  put_locked();
  check();
}

void Lease::renew() {
  const std::scoped_lock lock(mutex_);
  put_locked();
  check();
}

void Lease::check() const {
  if (!revoked_) return;
  throw Error(ErrorKind::kUnavailable,
              "the backup lost its lease on the store: the store could not be reached, or this "
              "host stood still, for too long, or somebody unlocked the store");
}

void Lease::check_store() {
  const std::scoped_lock lock(mutex_);
  look_locked(backup_key(lineage_, backup_));
  check();
}

void Lease::release(Leaves leaves) {
  renewal_.request_stop();
  if (renewal_.joinable()) renewal_.join();
  if (leaves == Leaves::kPacks)
    revoke(store_, lineage_, backup_);
  else
    store_.objects().remove(key_);
}

void Lease::put_locked() {
  put_json(store_.objects(), key_, text_);
  look_locked(key_);
}

// `key` is of what was put last. Without anybody's word, so much time means that a revocation may
// have come and gone.
void Lease::look_locked(const std::string& key) {
  if (revocation_of(store_, lineage_, backup_)) revoked_ = true;
  const auto info = store_.objects().head(key);
  if (!info) return;
  if (last_ && info->modified - *last_ >= store_.times().revocation_age / 2) revoked_ = true;
  last_ = info->modified;
}

void Lease::renew_until_stopped(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, stop, store_.times().lease_renewal, [] { return false; }) &&
         !stop.stop_requested()) {
    try {
      put_locked();
    } catch (const Error& error) {
      spdlog::warn("can't renew a lease, will try again: {}", error.message());
    }
  }
}

std::vector<FoundLease> list_leases(const Store& store, const Uuid& lineage) {
  std::vector<FoundLease> leases;
  std::set<Uuid> revoked;
  store.objects().list(prefix_of(lineage, LineagePart::kLeases), [&](const ObjectInfo& info) {
    if (const auto backup = parse_revocation_key(info.key)) revoked.insert(*backup);
    if (const auto backup = parse_json_key(info.key)) {
      leases.push_back(
          {.key = info.key, .backup = *backup, .renewed = info.modified, .record = {}});
    }
  });
  std::erase_if(leases, [&](FoundLease& lease) {
    if (revoked.contains(lease.backup)) return true;
    try {
      lease.record = parse(get_json(store.objects(), lease.key));
      if (lease.record->backup != lease.backup) lease.record.reset();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) return true;  // its backup has ended since
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
    }
    return false;
  });
  return leases;
}

std::map<Uuid, Timestamp> list_revocations(const Store& store, const Uuid& lineage) {
  std::map<Uuid, Timestamp> revocations;
  store.objects().list(prefix_of(lineage, LineagePart::kLeases), [&](const ObjectInfo& info) {
    if (const auto backup = parse_revocation_key(info.key)) revocations[*backup] = info.modified;
  });
  return revocations;
}

std::optional<Timestamp> revocation_of(const Store& store, const Uuid& lineage,
                                       const Uuid& backup) {
  const auto info = store.objects().head(revocation_key(lineage, backup));
  return info ? std::optional(info->modified) : std::nullopt;
}

void revoke(const Store& store, const Uuid& lineage, const Uuid& backup) {
  ObjectStore& objects = store.objects();
  // Not put again: what was committed in between would no longer be void.
  if (!objects.head(backup_key(lineage, backup))) {
    const std::string_view text = "{\"version\":1}\n";
    objects.put_if_absent(revocation_key(lineage, backup), as_bytes(text));
  }
  objects.remove(json_key(lineage, LineagePart::kLeases, backup));
}

bool is_dead(const FoundLease& lease, Timestamp now, const StoreTimes& times) {
  return now - lease.renewed >= times.lease_duration + times.lease_renewal;
}

}  // namespace convoy
