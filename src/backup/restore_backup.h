// Writes a backup's content to a device.
#pragma once

#include <stop_token>

#include "backup/backup_record.h"
#include "backup/backup_walk.h"
#include "backup/progress.h"
#include "backup/store.h"

namespace convoy {

// Writes the volume of `record` to the device, in the order of its packs, and syncs it. Only chunks
// that are not zero are written, so the device must read as zeros before. It may be O_DIRECT. Every
// chunk is verified before it is written.
//
// With `damaged`, what is lost stays as it is on the device, and is told there, by several
// threads at once. Without, throws kCorrupt, naming backup, range and pack, at the first thing that
// is damaged or missing; kNotFound if the backup is deleted meanwhile. kInvalidArgument if the
// device is too short; kCancelled soon after a request, when the threads have ended what they hold;
// kIo and kNoSpace. After an error the device holds a part of the volume, and nobody should take it
// for the whole.
void restore_backup(const Store& store, const BackupRecord& record, int device_fd,
                    const ProgressSink& progress, std::stop_token stop,
                    const DamageSink& damaged = {});

// As restore_backup, to a device that holds something else, of which a backup's content may be a
// part: only what differs is fetched and written. What is zero in the backup is discarded in whole
// pool blocks, of this size, and else written. The volume and the device have the same size.
void restore_difference(const Store& store, const BackupRecord& record, int device_fd,
                        std::uint64_t pool_block, const ProgressSink& progress,
                        std::stop_token stop);

}  // namespace convoy
