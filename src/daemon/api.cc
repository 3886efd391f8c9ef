#include "daemon/api.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/progress.h"
#include "base/error.h"
#include "base/size.h"
#include "daemon/job_stream.h"
#include "daemon/request_fields.h"
#include "daemon/views.h"
#include "volumes/pool_space.h"

namespace convoy {
namespace {

using nlohmann::ordered_json;

HttpResponse ok(const ordered_json& body) {
  return {200, "application/json", to_text(body) + "\n", {}};
}

std::uint64_t parse_job_id(const std::string& text) {
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error == std::errc{} && end == text.data() + text.size()) return id;
  throw Error(ErrorKind::kInvalidArgument, "'{}' is not the number of a job", text);
}

// For the log: what a call that failed was about, as far as it says so.
std::string object_of(const HttpRequest& request) {
  for (const char* const parameter : {"name", "url", "destination"}) {
    if (const std::string value = request.parameter(parameter); !value.empty())
      return fmt::format(" of '{}'", value);
  }
  try {
    const RequestFields fields(request.body);
    for (const char* const field : {"Name", "Volume", "Snapshot"}) {
      if (const std::string value = fields.text(field); !value.empty())
        return fmt::format(" of '{}'", value);
    }
  } catch (const Error&) {
    return "";  // that is what the call failed of
  }
  return "";
}

// A text that was left out, or is empty, is not given.
std::optional<std::string> given(const RequestFields& fields, const char* field) {
  std::string text = fields.text(field);
  return text.empty() ? std::nullopt : std::optional(std::move(text));
}

// A destination or a backup in one, as requests without a body name it.
StoreAddress address_in(const HttpRequest& request, const char* parameter) {
  return {.url = request.parameter(parameter), .s3_endpoint = request.parameter("s3-endpoint")};
}

StoreAddress address_in(const RequestFields& fields, const char* field) {
  return {.url = fields.text(field), .s3_endpoint = fields.text("S3Endpoint")};
}

void check_driver(const std::string& driver) {
  if (driver.empty() || driver == kDriverName) return;
  throw Error(ErrorKind::kInvalidArgument, "there is no driver '{}': leave it out, or give {}",
              driver, kDriverName);
}

// Something to act on unless it is "enough".
std::string describe_space(const PoolStatus& status, const PoolRow& pool) {
  const PoolSpace space = examine_space(status, pool.low_watermark);
  switch (space.level) {
    case SpaceLevel::kEnough:
      return "enough";
    case SpaceLevel::kLow:
      return "low: " + space.used;
    case SpaceLevel::kRefusing:
      return "too low for new volumes and snapshots: " + space.used;
  }
  return {};
}

// Keys sorted, as in all driver information.
ordered_json driver_info(const GeneralSettings& settings, const PoolRow& pool,
                         const PoolStatus& status) {
  const std::uint64_t block = pool.block_size.bytes();
  return {
      {"DataDevice", pool.data_device.native()},
      {"DefaultVolumeSize", std::to_string(pool.default_size)},
      {"Driver", kDriverName},
      {"Filesystem", pool.default_filesystem},
      {"LowWatermark", std::to_string(pool.low_watermark)},
      {"MetadataDevice", pool.metadata_device.native()},
      {"Root", (settings.root / kDriverName).native()},
      {"ThinpoolBlockSize", std::to_string(block)},
      {"ThinpoolDevice", "/dev/mapper/" + pool.name},
      {"ThinpoolMetadataSize", std::to_string(status.total_metadata_blocks * kMetadataBlockBytes)},
      {"ThinpoolMetadataUsed", std::to_string(status.used_metadata_blocks * kMetadataBlockBytes)},
      {"ThinpoolSize", std::to_string(status.total_data.bytes(pool.block_size))},
      {"ThinpoolSpace", describe_space(status, pool)},
      {"ThinpoolState", status.needs_check ? "needs check" : to_text(status.mode)},
      {"ThinpoolUsed", std::to_string(status.used_data.bytes(pool.block_size))},
      {"UUID", pool.uuid.to_string()},
  };
}

}  // namespace

Api::Api(GeneralSettings settings, Volumes& volumes, Backups& backups, Creations& creations,
         Jobs& jobs)
    : settings_(std::move(settings)),
      volumes_(volumes),
      backups_(backups),
      creations_(creations),
      jobs_(jobs) {}

HttpResponse Api::handle(const HttpRequest& request) const {
  static constexpr std::array<Route, 22> kRoutes = {{
      {"GET", "/v1/info", &Api::info},
      {"POST", "/v1/pool/grow", &Api::grow_pool},
      {"GET", "/v1/volumes", &Api::list_volumes},
      {"GET", "/v1/volume", &Api::inspect_volume},
      {"POST", "/v1/volume", &Api::create_volume},
      {"DELETE", "/v1/volume", &Api::delete_volume},
      {"POST", "/v1/volume/restore", &Api::restore_volume},
      {"POST", "/v1/volume/mount", &Api::mount_volume},
      {"POST", "/v1/volume/umount", &Api::unmount_volume},
      {"POST", "/v1/volume/trim", &Api::trim_volume},
      {"POST", "/v1/snapshot", &Api::create_snapshot},
      {"GET", "/v1/snapshot", &Api::inspect_snapshot},
      {"DELETE", "/v1/snapshot", &Api::delete_snapshot},
      {"POST", "/v1/backup", &Api::create_backup},
      {"GET", "/v1/backups", &Api::list_backups},
      {"GET", "/v1/backup", &Api::inspect_backup},
      {"DELETE", "/v1/backup", &Api::delete_backup},
      {"POST", "/v1/backup/verify", &Api::verify_backup},
      {"POST", "/v1/backup/gc", &Api::collect_garbage},
      {"POST", "/v1/backup/unlock", &Api::unlock_backups},
      {"GET", "/v1/jobs", &Api::list_jobs},
      {"DELETE", "/v1/job", &Api::cancel_job},
  }};
  spdlog::debug("{} {}", request.method, request.path);
  try {
    for (const Route& route : kRoutes) {
      if (request.method == route.method && request.path == route.path)
        return (this->*route.handler)(request);
    }
    throw Error(ErrorKind::kNotFound, "there is no call {} {}", request.method, request.path);
  } catch (const Error& error) {
    spdlog::warn("{} {}{}: {}", request.method, request.path, object_of(request), error.message());
    return {http_status(error.kind()), "application/json", error_text(error) + "\n", {}};
  } catch (const std::exception& error) {
    spdlog::error("{} {}{}: {}", request.method, request.path, object_of(request), error.what());
    return {500,
            "application/json",
            error_text(Error(ErrorKind::kInternal, "{}", error.what())) + "\n",
            {}};
  }
}

HttpResponse Api::grow_pool(const HttpRequest&) const {
  volumes_.grow_pool();
  return ok(driver_info(settings_, volumes_.pool(), volumes_.pool_status()));
}

HttpResponse Api::info(const HttpRequest&) const {
  return ok({
      {"General",
       {
           {"Root", settings_.root.native()},
           {"DriverList", ordered_json::array({kDriverName})},
           {"DefaultDriver", kDriverName},
           {"MountNamespaceFD", settings_.mount_namespace},
           {"IgnoreDockerDelete", settings_.ignore_docker_delete},
           {"CreateOnDockerMount", settings_.create_on_docker_mount},
           {"CmdTimeout", fmt::format("{}s", settings_.command_timeout.count())},
       }},
      {kDriverName, driver_info(settings_, volumes_.pool(), volumes_.pool_status())},
  });
}

// --- Volumes ---

HttpResponse Api::list_volumes(const HttpRequest&) const {
  ordered_json volumes = ordered_json::object();
  for (const VolumeView& view : volumes_.list()) volumes[view.volume.name] = volume_view(view);
  return ok(volumes);
}

HttpResponse Api::inspect_volume(const HttpRequest& request) const {
  const VolumeView view = volumes_.inspect(request.parameter("name"));
  ordered_json json = volume_view(view);
  ordered_json& driver_info = json["DriverInfo"];
  if (const auto used = volumes_.used_bytes(view.volume))
    driver_info["Used"] = std::to_string(*used);
  // As the keys of driver information are sorted, in place before the last two.
  for (const char* const last : {"VolumeCreatedAt", "VolumeName"}) {
    ordered_json value = driver_info[last];
    driver_info.erase(last);
    driver_info[last] = std::move(value);
  }
  return ok(json);
}

HttpResponse Api::create_volume(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  check_driver(fields.text("Driver"));
  Creations::Request creation;
  NewVolume& volume = creation.volume;
  volume.name = fields.text("Name");
  if (const auto size = given(fields, "Size")) volume.size = parse_size(*size);
  volume.filesystem = given(fields, "Filesystem");
  volume.mkfs_options = given(fields, "MkfsOptions");
  volume.mount_options = given(fields, "MountOptions");
  creation.backup = address_in(fields, "Backup");
  if (fields.flag("AllowDamaged")) creation.on_damage = Backups::OnDamage::kAllow;
  return stream_job(creations_.start(std::move(creation)));
}

HttpResponse Api::restore_volume(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  const std::string name = volumes_.inspect(fields.text("Name")).volume.name;
  const StoreAddress backup = address_in(fields, "Backup");
  return stream_job(jobs_.start("restore", name, [this, name, backup](Job& job) {
    return to_text(volume_view(backups_.restore_into(name, backup, job)));
  }));
}

HttpResponse Api::delete_volume(const HttpRequest& request) const {
  volumes_.remove(request.parameter("name"));
  return {};
}

HttpResponse Api::mount_volume(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  const auto mountpoint = volumes_.mount(fields.text("Name"), fields.text("MountPoint"),
                                         VolumeUser::Kind::kCommand, "");
  return ok({{"MountPoint", mountpoint.native()}});
}

HttpResponse Api::unmount_volume(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  if (fields.flag("Force")) {
    volumes_.force_unmount(fields.text("Name"));
  } else {
    volumes_.unmount(fields.text("Name"), VolumeUser::Kind::kCommand, "");
  }
  return {};
}

HttpResponse Api::trim_volume(const HttpRequest& request) const {
  const VolumeView view = volumes_.inspect(RequestFields(request.body).text("Name"));
  return stream_job(jobs_.start("trim", view.volume.name, [this, volume = view.volume](Job& job) {
    const std::uint64_t trimmed =
        volumes_.trim(volume.uuid.to_string(), [&](std::uint64_t bytes_done) {
          job.report({bytes_done, volume.size});
          check_stop(job.stop_token(), "trim");
        });
    return to_text({{"Trimmed", trimmed}});
  }));
}

// --- Snapshots ---

HttpResponse Api::create_snapshot(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  const SnapshotRow snapshot = volumes_.create_snapshot(fields.text("Volume"), fields.text("Name"));
  return ok({{"Name", snapshot.name}, {"UUID", snapshot.uuid.to_string()}});
}

HttpResponse Api::inspect_snapshot(const HttpRequest& request) const {
  const SnapshotRow snapshot = volumes_.inspect_snapshot(request.parameter("name"));
  return ok(snapshot_view(snapshot, volumes_.inspect(snapshot.volume.to_string()).volume));
}

HttpResponse Api::delete_snapshot(const HttpRequest& request) const {
  volumes_.remove_snapshot(request.parameter("name"));
  return {};
}

// --- Backups ---

HttpResponse Api::create_backup(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  const std::string snapshot = volumes_.inspect_snapshot(fields.text("Snapshot")).name;
  const StoreAddress destination = address_in(fields, "Destination");
  const auto compression = given(fields, "Compression");
  const Compression chosen = compression ? Compression::parse(*compression) : Compression();
  return stream_job(jobs_.start("backup", snapshot, [=, this](Job& job) {
    const Backups::Created created = backups_.create(snapshot, destination, chosen, job);
    return to_text({{"URL", created.url},
                    {"Incremental", created.incremental},
                    {"BytesRead", created.statistics.bytes_read},
                    {"BytesStored", created.statistics.bytes_stored},
                    {"BytesReused", created.bytes_reused},
                    {"Seconds", job.elapsed().count()}});
  }));
}

HttpResponse Api::list_backups(const HttpRequest& request) const {
  const Backups::List list =
      backups_.list(address_in(request, "destination"), request.parameter("volume"));
  ordered_json backups = ordered_json::object();
  for (const Backups::Listed& backup : list.backups)
    backups[backup.url] = backup_view(backup.info, backup.url, backup.convoy_name);
  ordered_json damaged = ordered_json::array();
  for (const Error& error : list.damaged) damaged.push_back(error.message());
  return ok({{"Backups", backups}, {"Damaged", damaged}});
}

HttpResponse Api::inspect_backup(const HttpRequest& request) const {
  const Backups::Listed backup = backups_.inspect(address_in(request, "url"));
  return ok(backup_view(backup.info, backup.url, backup.convoy_name));
}

HttpResponse Api::delete_backup(const HttpRequest& request) const {
  const StoreAddress backup = address_in(request, "url");
  return stream_job(jobs_.start("delete", backup.url, [this, backup](Job& job) {
    backups_.remove(backup, job);
    return std::string("{}");
  }));
}

HttpResponse Api::verify_backup(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  const StoreAddress address = address_in(fields, "URL");
  const VerifyDepth depth = fields.flag("Quick") ? VerifyDepth::kQuick : VerifyDepth::kFull;
  return stream_job(jobs_.start("verify", address.url, [this, address, depth](Job& job) {
    const Backups::Verified verified = backups_.verify(address, depth, job);
    ordered_json damaged = ordered_json::array();
    for (const auto& [backup, part, reason] : verified.damaged) {
      ordered_json entry = {{"BackupURL", backup}};
      if (part) {
        entry["Offset"] = part->range.begin;
        entry["Size"] = part->range.length();
        entry["Pack"] = to_string(part->reference.pack);
      }
      entry["Reason"] = reason;
      damaged.push_back(std::move(entry));
    }
    ordered_json result = {{"Backups", verified.backups}, {"Damaged", damaged}};
    if (!verified.not_noted.empty()) result["NotNoted"] = verified.not_noted;
    return to_text(result);
  }));
}

HttpResponse Api::collect_garbage(const HttpRequest& request) const {
  const RequestFields fields(request.body);
  const StoreAddress destination = address_in(fields, "Destination");
  const CollectionMode mode =
      fields.flag("DryRun") ? CollectionMode::kPlanOnly : CollectionMode::kHalfDead;
  return stream_job(jobs_.start("gc", destination.url, [this, destination, mode](Job& job) {
    const Backups::Collected collected = backups_.collect_garbage(destination, mode, job);
    ordered_json packs = ordered_json::array();
    for (const auto& [lineage, pack] : collected.packs) {
      packs.push_back(
          {{"Volume", lineage.to_string()},
           {"Pack", to_string(pack.pack)},
           {"Action", pack.action == CollectedPack::Action::kRemoved ? "remove" : "rewrite"},
           {"Size", pack.size},
           {"Freed", pack.freed}});
    }
    return to_text(
        {{"Packs", packs}, {"Notes", collected.notes}, {"Failures", collected.failures}});
  }));
}

HttpResponse Api::unlock_backups(const HttpRequest& request) const {
  ordered_json unlocked = ordered_json::array();
  for (const auto& [url, renewed] :
       backups_.unlock(address_in(RequestFields(request.body), "Destination"))) {
    unlocked.push_back({{"BackupURL", url}, {"Renewed", format_rfc3339(renewed)}});
  }
  return ok({{"Unlocked", unlocked}});
}

// --- Jobs ---

HttpResponse Api::list_jobs(const HttpRequest&) const {
  ordered_json jobs = ordered_json::array();
  for (const auto& job : jobs_.running()) jobs.push_back(job_view(*job));
  return ok(jobs);
}

HttpResponse Api::cancel_job(const HttpRequest& request) const {
  jobs_.cancel(parse_job_id(request.parameter("id")));
  return {};
}

}  // namespace convoy
