#include "daemon/views.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "base/time.h"

namespace convoy {
namespace {

using nlohmann::ordered_json;

ordered_json snapshot_driver_info(const SnapshotRow& snapshot, const VolumeRow& volume) {
  return {
      {"DevID", std::to_string(snapshot.thin_id)},
      {"Driver", kDriverName},
      {"Size", std::to_string(snapshot.size)},
      {"SnapshotCreatedAt", format_for_user(snapshot.created)},
      {"SnapshotName", snapshot.name},
      {"UUID", snapshot.uuid.to_string()},
      {"VolumeUUID", volume.uuid.to_string()},
  };
}

}  // namespace

ordered_json volume_view(const VolumeView& view) {
  const VolumeRow& volume = view.volume;
  // Names are unique, and are not looked for again: each look would go through all before it.
  ordered_json::object_t snapshots;
  for (const SnapshotRow& snapshot : view.snapshots) {
    ordered_json fields = {
        {"Name", snapshot.name},
        {"UUID", snapshot.uuid.to_string()},
        {"CreatedTime", format_for_user(snapshot.created)},
        {"DriverInfo", snapshot_driver_info(snapshot, volume)},
    };
    snapshots.emplace_back(snapshot.name, std::move(fields));
  }
  ordered_json json = {
      {"Name", volume.name},
      {"UUID", volume.uuid.to_string()},
      {"Driver", kDriverName},
      {"MountPoint", view.mountpoint.native()},
      {"CreatedTime", format_for_user(volume.created)},
      {"DriverInfo",
       {
           {"DevID", std::to_string(volume.thin_id)},
           {"Device", view.device.native()},
           {"Driver", kDriverName},
           {"Filesystem", volume.filesystem},
           {"MountPoint", view.mountpoint.native()},
           {"Size", std::to_string(volume.size)},
           {"UUID", volume.uuid.to_string()},
           {"VolumeCreatedAt", format_for_user(volume.created)},
           {"VolumeName", volume.name},
       }},
  };
  json["Snapshots"] = std::move(snapshots);
  return json;
}

ordered_json snapshot_view(const SnapshotRow& snapshot, const VolumeRow& volume) {
  return {
      {"Name", snapshot.name},
      {"UUID", snapshot.uuid.to_string()},
      {"VolumeName", volume.name},
      {"VolumeCreatedAt", format_for_user(volume.created)},
      {"CreatedTime", format_for_user(snapshot.created)},
      {"DriverInfo", snapshot_driver_info(snapshot, volume)},
  };
}

ordered_json backup_view(const BackupInfo& backup, const std::string& url,
                         const std::optional<std::string>& convoy_name) {
  const BackupSource& source = backup.source;
  ordered_json view = {
      {"BackupName", convoy_name.value_or(backup.name())},
      {"BackupURL", url},
      {"BackupUUID", backup.uuid.to_string()},
      {"CreatedTime", format_for_user(backup.created)},
      {"DriverName", source.driver},
      {"SnapshotCreatedAt", format_for_user(source.snapshot.created)},
      {"SnapshotName", source.snapshot.name},
      {"SnapshotUUID", source.snapshot.uuid.to_string()},
      {"StoredSize", std::to_string(backup.statistics.bytes_stored)},
      {"VolumeCreatedAt", format_for_user(source.volume.created)},
      {"VolumeName", source.volume.name},
      {"VolumeSize", std::to_string(source.size)},
      {"VolumeUUID", source.volume.uuid.to_string()},
  };
  if (convoy_name) {
    for (const char* const unknown : {"BackupUUID", "SnapshotUUID", "StoredSize", "VolumeUUID"})
      view.erase(unknown);
  }
  return view;
}

}  // namespace convoy
