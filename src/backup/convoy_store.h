// Backups that Rancher Convoy 0.5 wrote with its devicemapper driver: they can be listed and
// restored. Nothing is ever written there.
//
// A volume stands under convoy-objectstore/volumes/<ab>/<cd>/<name>/, where ab and cd are the first
// four characters of its name, which is padded with '!' to that length: volume.cfg, a record
// backups/backup_<name>.cfg for each backup, and blocks of 2 MiB of the volume, each compressed by
// gzip as blocks/<xx>/<yy>/<checksum>.blk. The checksum is the first half of the SHA-512 of the
// plain bytes, in hex. (Convoy's objectstore package)
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "backup/backup_record.h"
#include "backup/damage.h"
#include "backup/progress.h"
#include "base/error.h"
#include "objectstore/object_store.h"

namespace convoy {

// How Convoy names a backup.
struct ConvoyBackupName {
  std::string volume;
  std::string backup;

  bool operator==(const ConvoyBackupName&) const = default;

  // A UUID of our own for it, always the same.
  Uuid uuid() const;
};

struct ConvoyBackup {
  ConvoyBackupName name;
  BackupInfo info;  // UUIDs of our own, no statistics

  struct Block {
    std::uint64_t offset = 0;
    std::string checksum;
  };
  std::vector<Block> blocks;  // ascending; what no block covers is zero
};

struct ConvoyBackupList {
  std::vector<ConvoyBackup> backups;  // by volume and time, without their blocks
  std::vector<Error> damaged;         // one for each that can't be read
};

// Of all volumes, or of the one of this name. Empty if there is no such store.
ConvoyBackupList list_convoy_backups(ObjectStore& objects,
                                     const std::optional<std::string>& volume_name);

// Throws kNotFound if there is no such backup, kCorrupt if its record is damaged.
ConvoyBackup read_convoy_backup(ObjectStore& objects, const ConvoyBackupName& name);

// As restore_backup.
void restore_convoy_backup(ObjectStore& objects, const ConvoyBackup& backup, int device_fd,
                           const ProgressSink& progress, const std::stop_token& stop,
                           const DamageSink& damaged = {});

}  // namespace convoy
