#include "backup/lease.h"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/json_fields.h"
#include "backup/layout.h"
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

[[noreturn]] void refuse_lapsed() {
  throw Error(
      ErrorKind::kUnavailable,
      "the backup lost its lease on the store: the store could not be reached, or this host "
      "stood still, for too long");
}

}  // namespace

Lease::Lease(const Store& store, const Uuid& lineage, const LeaseRecord& record)
    : store_(store),
      key_(json_key(lineage, LineagePart::kLeases, Uuid::generate())),
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

void Lease::renew() {
  const std::scoped_lock lock(mutex_);
  put_locked();
  check();
}

void Lease::check() const {
  if (lapsed_) refuse_lapsed();
}

void Lease::check_at(Timestamp time) const {
  const std::scoped_lock lock(mutex_);
  if (lapsed_ || lapsed_by(time)) refuse_lapsed();
}

void Lease::release() {
  renewal_.request_stop();
  if (renewal_.joinable()) renewal_.join();
  store_.objects().remove(key_);
}

void Lease::put_locked() {
  put_json(store_.objects(), key_, text_);
  const auto info = store_.objects().head(key_);
  // A remover takes away the leases of writers that it takes for dead.
  if (!info || lapsed_by(info->modified)) lapsed_ = true;
  if (info) last_ = info->modified;
}

bool Lease::lapsed_by(Timestamp time) const {
  // In both directions: a clock that was set back hides how long the gap was.
  return last_ && std::chrono::abs(time - *last_) >= store_.times().lease_duration;
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
  store.objects().list(prefix_of(lineage, LineagePart::kLeases), [&](const ObjectInfo& info) {
    if (!parse_json_key(info.key)) return;
    try {
      leases.push_back({.key = info.key,
                        .renewed = info.modified,
                        .record = parse(get_json(store.objects(), info.key))});
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) return;  // its backup has ended since
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
      leases.push_back({.key = info.key, .renewed = info.modified, .record = std::nullopt});
    }
  });
  return leases;
}

bool may_be_alive(const FoundLease& lease, Timestamp now, const StoreTimes& times) {
  return now - lease.renewed < times.lease_duration + times.lease_renewal;
}

}  // namespace convoy
