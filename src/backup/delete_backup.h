// Removes a backup, and the packs that no other one needs.
#pragma once

#include <stop_token>

#include "backup/store.h"
#include "base/uuid.h"

namespace convoy {

// Deletes the backup, which is gone as soon as its JSON is; what follows frees space. Also finishes
// what removers that died have left, and removes packs of backups that were never committed. With a
// lineage's last backup all of it goes, unless somebody is writing another one. Any number of hosts
// may do this at once, and make backups meanwhile.
//
// Throws kNotFound if the store has no such backup (leftovers of its deletion are removed
// nevertheless). kCorrupt or kUnsupported, before anything is changed, if another backup of the
// lineage can't be read, since nobody knows what that one needs: delete it first. A backup whose
// own JSON is damaged can be deleted. kCancelled within a few requests to the store after a stop
// is requested; the message tells whether the backup is gone. After any other error it may or may
// not be. What is left is removed by the next deletion.
void delete_backup(const Store& store, const Uuid& lineage, const Uuid& backup,
                   const std::stop_token& stop = {});

}  // namespace convoy
