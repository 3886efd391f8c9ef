// Makes a backup: reads what may differ from the parent, stores what the store does not have, and
// commits.
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <vector>

#include "backup/backup_record.h"
#include "backup/frame.h"
#include "backup/progress.h"
#include "backup/source_ranges.h"
#include "backup/store.h"
#include "base/limits.h"
#include "base/uuid.h"

namespace convoy {

struct BackupPlan {
  BackupSource source;

  // Holds the volume's content, which must not change meanwhile. May be O_DIRECT. Stays the
  // caller's.
  int device_fd = -1;

  // The complete backup of the same lineage that this one is built on: what no range covers is
  // taken from there. Without one it is zero.
  std::optional<Uuid> parent = std::nullopt;

  // Ascending, without overlaps, within the volume. To read more than has changed is harmless, and
  // costs no space in the store if the content is the parent's.
  std::vector<SourceRange> ranges = {};  // NOLINT(readability-redundant-member-init): g++ wants it

  // Of a backup without parent: a power of two from kMinChunkSize to kMaxChunkSize. One with a
  // parent has its parent's.
  std::uint32_t chunk_size = kDefaultChunkSize;

  Compression compression = {};  // of chunks

  // Builds on the parent although its tree is damaged: what is lost there is read from the volume.
  // All chunks of packs of which a verification left a note are read in any case.
  bool repair = false;
};

// Makes the backup and returns its record, which is then durably in the store. Any number of hosts
// may do this at once, and delete backups meanwhile.
//
// Throws kNotFound if the parent is gone or its record can't be understood: plan anew, on another
// one. kUnavailable if the lease was
// revoked, since nothing was heard of it for long or somebody unlocked the store: try again.
// kCorrupt if what is needed of the parent's tree is damaged, or a verification found any of it so,
// but not with `repair`; kUnsupported if a lineage's plan or note is of another version. kCancelled
// soon after a request, when the threads have ended what they hold, a few MiB each.
// kInvalidArgument for a plan that can't be; kIo and kNoSpace as device and store have it. After an
// error the store has no such backup (unless not even its removal succeeded after a failed commit).
// What was stored for it stays for the next backup to use, and is garbage after a day; after
// kNoSpace it is removed.
BackupRecord create_backup(const Store& store, const BackupPlan& plan, const ProgressSink& progress,
                           std::stop_token stop);

}  // namespace convoy
