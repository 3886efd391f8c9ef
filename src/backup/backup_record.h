// What a store says of one backup: the content of its JSON object, whose presence makes the backup
// complete.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backup/layout.h"
#include "backup/tree_node.h"
#include "base/time.h"
#include "base/uuid.h"

namespace convoy {

struct VolumeIdentity {
  Uuid uuid;
  std::string name;
  Timestamp created;
  std::string filesystem;  // such as "ext4"; may be empty
};

struct SnapshotIdentity {
  Uuid uuid;
  std::string name;
  Timestamp created;
};

// Whose content a backup holds.
struct BackupSource {
  Uuid lineage;
  std::string driver;
  VolumeIdentity volume;
  SnapshotIdentity snapshot;
  std::uint64_t size = 0;  // of the volume: a multiple of 512, at most kMaxVolumeSize
};

struct BackupStatistics {
  std::uint64_t bytes_read = 0;     // from the device
  std::uint64_t chunks_stored = 0;  // neither zero nor known already
  // Read, and there already: in the parent, earlier in this backup, or in an interrupted one.
  std::uint64_t chunks_reused = 0;
  std::uint64_t bytes_stored = 0;  // in packs of this backup
};

// What people want to know of a backup.
struct BackupInfo {
  Uuid uuid;
  Timestamp created;
  BackupSource source;
  std::optional<Uuid> parent;  // the backup it was built on, which may be gone by now
  BackupStatistics statistics;

  // "backup-" and the last 16 hex digits of the UUID.
  std::string name() const;
};

// A pack that a backup refers to.
struct PackUse {
  std::uint64_t size = 0;
  // How many entries of the backup's tree lead into it (for the tree's packs: entries, and the
  // root). A backup that drops the last one no longer refers to the pack.
  std::uint64_t references = 0;

  bool operator==(const PackUse&) const = default;
};

using PackUses = std::map<PackName, PackUse>;

// All that is needed to read a backup, or to build the next one on it.
struct BackupRecord {
  BackupInfo info;
  std::uint32_t chunk_size = 0;
  std::optional<Reference> root;  // nothing if the whole volume is zero
  PackUses packs;

  TreeShape shape() const { return {info.source.size, chunk_size}; }
};

// The JSON text of a backup, which stands compressed in the store, and its inverse. The latter
// throws kCorrupt, naming the field, for what is no record or breaks the rules of
// docs/backup-format.md; kUnsupported for another version.
std::string encode_record(const BackupRecord& record);
BackupRecord parse_record(std::span<const std::byte> text);

}  // namespace convoy
