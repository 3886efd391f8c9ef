// The JSON that users read: Convoy's fields, in Convoy's order, every leaf a string.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "backup/backup_record.h"
#include "volumes/volumes.h"

namespace convoy {

inline constexpr const char* kDriverName = "devicemapper";

nlohmann::ordered_json volume_view(const VolumeView& view);
nlohmann::ordered_json snapshot_view(const SnapshotRow& snapshot, const VolumeRow& volume);
// `convoy_name` is the name of a backup that Rancher Convoy made: fields that it did not have are
// left out.
nlohmann::ordered_json backup_view(const BackupInfo& backup, const std::string& url,
                                   const std::optional<std::string>& convoy_name);

}  // namespace convoy
