// Chunks that backups have stored which were never completed: what an interrupted backup had sent
// is not sent again by the next one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "backup/backup_record.h"
#include "backup/layout.h"
#include "backup/lease.h"
#include "backup/pack_footers.h"
#include "backup/store.h"
#include "backup/tree_node.h"
#include "base/uuid.h"

namespace convoy {

// The backups that were begun and not completed, as leases and revocations tell, and left packs of
// chunks that are not among `known`. The newest few of them.
std::vector<Uuid> interrupted_backups(const Store& store, const Uuid& lineage,
                                      const LeaseList& leases, const PackUses& known);

// The packs of chunks of these backups that may be referred to by a writer whose lease names the
// backups: those that no plan of removal names, with their sizes. To be called after the lease was
// put: so a remover that has not seen it has put its plan, or removed the packs, before.
PackUses usable_packs(const Store& store, const Uuid& lineage, const std::vector<Uuid>& backups);

// Finds chunks by their digests. Packs were filled in the order of the volume, and this backup goes
// through it in the same order, so of many packs only those around the last chunk that was found
// are in memory. Thread-safe.
class LeftoverChunks {
 public:
  // Chunks that are known at once, of all interrupted backups together: 20 MiB of memory, and of a
  // single one 4 GiB of a volume in chunks of 16 KiB.
  static constexpr std::size_t kWindow = 1U << 18U;

  // In packs of one lineage. `objects` and `packs` must outlive this.
  LeftoverChunks(ObjectStore& objects, const Uuid& lineage, const PackUses& packs,
                 std::size_t window = kWindow);

  // Where the chunk is, if it is known. Throws what ObjectStore::get_range throws; a damaged pack
  // has no chunks.
  std::optional<Reference> find(const Digest& digest);

 private:
  struct Loaded {
    PackFooters::Footer footer;  // null: it can't be read
    PackName pack;
    std::size_t first = 0;  // slots in all packs before it
  };
  // What one interrupted backup has left.
  struct Window {
    std::vector<PackName> packs;  // all of them, in order
    std::size_t begin = 0;        // those that are loaded
    std::deque<Loaded> loaded;
    std::size_t end = 0;       // slots in all packs up to the last one that is loaded
    std::size_t position = 0;  // about where in all slots this backup is
    struct Place {
      std::size_t pack;
      std::uint32_t slot;
    };
    std::unordered_map<std::uint64_t, Place> place_of;  // by the first bytes of the digest
  };

  std::optional<Reference> find_in(Window& window, const Digest& digest);
  void fill(Window& window);
  void load_next(Window& window);
  void drop_first(Window& window);
  void advance(Window& window);

  PackFooters footers_;
  std::size_t max_slots_;  // of a window

  std::mutex mutex_;
  std::vector<Window> windows_;
};

}  // namespace convoy
