// Writes a backup's content to a device.
#pragma once

#include <stop_token>

#include "backup/backup_record.h"
#include "backup/backup_walk.h"
#include "backup/progress.h"
#include "backup/store.h"

namespace convoy {

// Writes the volume of `record` to the device, from its begin to its end, and syncs it. Only chunks
// that are not zero are written, so the device must read as zeros before. It may be O_DIRECT. Every
// chunk is verified before it is written.
//
// With `damaged`, what is lost stays as it is on the device, and is told there, by several
// threads at once. Without, throws kCorrupt, naming backup, range and pack, at the first thing that
// is damaged or missing. kInvalidArgument if the device is too short; kCancelled soon after a
// request, when the threads have ended what they hold; kIo and kNoSpace. After an error the device
// holds a part of the volume, and nobody should take it for the whole.
void restore_backup(const Store& store, const BackupRecord& record, int device_fd,
                    const ProgressSink& progress, std::stop_token stop,
                    const DamageSink& damaged = {});

}  // namespace convoy
