#include "backup/lease.h"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/json_fields.h"
#include "backup/layout.h"
#include "base/bytes.h"
#include "base/error.h"

namespace convoy {
namespace {

// A backup builds on one parent and a few interrupted ones; a later program may name some more.
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

LeaseList list_leases_and_revocations(const Store& store, const Uuid& lineage) {
  LeaseList list;
  store.objects().list(prefix_of(lineage, LineagePart::kLeases), [&](const ObjectInfo& info) {
    if (const auto revoked = parse_revocation_key(info.key))
      list.revocations[*revoked] = info.modified;
    if (const auto leased = parse_json_key(info.key)) list.leases[*leased] = info.modified;
  });
  return list;
}

Lease::Lease(const Store& store, const Uuid& lineage, const LeaseRecord& record)
    : store_(store),
      lineage_(lineage),
      backup_(record.backup),
      key_(json_key(lineage, LineagePart::kLeases, record.backup)),
      text_(encode(record)) {
  try {
    put_json(store_.objects(), key_, text_);
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

void Lease::build_on(const std::vector<Uuid>& backups) {
  const std::scoped_lock lock(mutex_);
  text_ = encode({.backup = backup_, .builds_on = backups});
  renew_locked();
  check();
}

LeaseList Lease::look() {
  const std::scoped_lock lock(mutex_);
  LeaseList list = look_locked();
  check();
  return list;
}

void Lease::renew() {
  const std::scoped_lock lock(mutex_);
  renew_locked();
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
  if (revocation_of(store_, lineage_, backup_)) revoked_ = true;
  if (const auto record = store_.objects().head(backup_key(lineage_, backup_)))
    note_time(record->modified);
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

void Lease::renew_locked() {
  if (!last_) look_locked();  // after a long sleep it would no longer tell when it was put first
  put_json(store_.objects(), key_, text_);
  look_locked();
}

LeaseList Lease::look_locked() {
  LeaseList list = list_leases_and_revocations(store_, lineage_);
  if (list.revocations.contains(backup_)) revoked_ = true;
  if (const auto own = list.leases.find(backup_); own != list.leases.end())
    note_time(own->second);
  else if (const auto info = store_.objects().head(key_))  // a store that lists late
    note_time(info->modified);
  else
    revoked_ = true;  // only then does somebody else remove it
  return list;
}

// Of the lease, or of the record that was put after it. Without anybody's word, so much time means
// that a revocation may have come and gone.
void Lease::note_time(Timestamp put) {
  if (last_ && put - *last_ >= store_.times().revocation_age / 2) revoked_ = true;
  last_ = put;
}

void Lease::renew_until_stopped(const std::stop_token& stop) {
  std::unique_lock lock(wake_mutex_);
  while (!revoked_ && !wake_.wait_for(lock, stop, store_.times().lease_renewal, [] {
    return false;
  }) && !stop.stop_requested()) {
    try {
      renew();
    } catch (const std::exception& error) {
      if (!revoked_) spdlog::warn("can't renew a backup's lease, will try again: {}", error.what());
    }
  }
}

std::vector<FoundLease> list_leases(const Store& store, const Uuid& lineage) {
  const LeaseList list = list_leases_and_revocations(store, lineage);
  std::vector<FoundLease> leases;
  for (const auto& [backup, renewed] : list.leases) {
    if (list.revocations.contains(backup)) continue;
    FoundLease lease{.backup = backup, .renewed = renewed, .record = {}};
    try {
      lease.record =
          parse(get_listed_json(store.objects(), json_key(lineage, LineagePart::kLeases, backup)));
      if (lease.record->backup != backup) lease.record.reset();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) continue;  // its backup has ended since
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
    }
    leases.push_back(std::move(lease));
  }
  return leases;
}

std::optional<Timestamp> revocation_of(const Store& store, const Uuid& lineage,
                                       const Uuid& backup) {
  const auto info = store.objects().head(revocation_key(lineage, backup));
  return info ? std::optional(info->modified) : std::nullopt;
}

bool is_void(const Store& store, Timestamp committed, Timestamp revoked) {
  return committed > revoked + store.objects().time_lag();
}

Timestamp end_of_commits(const Store& store, Timestamp revoked) {
  return revoked + 2 * store.objects().time_lag();
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
