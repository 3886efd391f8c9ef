// The footers of a backup's packs, read when they are first needed.
#pragma once

#include <cstdint>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backup/backup_record.h"
#include "backup/layout.h"
#include "backup/pack.h"
#include "base/error.h"
#include "objectstore/object_store.h"

namespace convoy {

// Where the slots of a pack are, and in which object.
struct PackFooter {
  std::string key;
  std::vector<PackSlot> slots;
};

// Thread-safe. Remembers the footers used last, in bounded memory, and which packs are damaged, and
// reads none twice at once.
// Packs may be rewritten meanwhile.
class PackFooters {
 public:
  // For readers of the packs that `packs` lists. `objects` and `packs` must outlive this.
  PackFooters(ObjectStore& objects, const Uuid& lineage, const PackUses& packs)
      : objects_(objects), lineage_(lineage), packs_(packs) {}

  using Footer = std::shared_ptr<const PackFooter>;

  // Throws kCorrupt if `packs` has no such pack, the pack is missing, or its footer is damaged;
  // else what ObjectStore::get_range throws.
  Footer footer_of(const PackName& pack);

  // To be called when the object that `footer` is of is gone. The next footer_of() looks where the
  // pack is now.
  void forget(const PackName& pack, const Footer& footer);

 private:
  struct Known {
    PackName pack;
    std::shared_future<Footer> footer;
    std::size_t size = 0;  // in slots, and one for itself; 0 while it is being read
  };
  using Position = std::list<Known>::iterator;

  // An object that holds a pack.
  struct Place {
    std::string key;
    std::uint64_t size = 0;
  };

  static Footer wait_for(const std::shared_future<Footer>& footer);
  Footer read(const PackName& pack);
  std::optional<PackFooter> read_at(const Place& place);
  std::optional<Place> rewritten(const PackName& pack, const std::string& but_not);
  void list_rewritten();
  void forget_oldest();

  ObjectStore& objects_;
  const Uuid lineage_;
  const PackUses& packs_;

  std::mutex mutex_;
  std::list<Known> known_;  // the one used last in front
  std::map<PackName, Position> position_of_;
  std::size_t total_size_ = 0;
  std::map<PackName, Error> broken_;  // each is asked for by all chunks that should be there

  // Held for one of the footers, rare in a store that convoy wrote, that take up to 72 MiB to read.
  std::mutex large_mutex_;

  std::mutex rewritten_mutex_;           // held while they are listed
  std::map<PackName, Place> rewritten_;  // the newest of each, when they were last listed
};

}  // namespace convoy
