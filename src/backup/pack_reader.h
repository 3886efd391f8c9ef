// Reads chunks and nodes of one backup out of its packs, and lets nothing through that is not what
// the backup means.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backup/backup_record.h"
#include "backup/frame.h"
#include "backup/layout.h"
#include "backup/pack.h"
#include "backup/pack_footers.h"
#include "backup/tree_node.h"
#include "objectstore/object_store.h"

namespace convoy {

// Not thread-safe, but several may share their footers. All references must outlive the reader.
class PackReader {
 public:
  PackReader(ObjectStore& objects, const BackupRecord& record, PackFooters& footers)
      : objects_(objects), record_(record), footers_(footers) {}

  // One thing to read: where it is, and for which bytes of the volume it stands, which errors name.
  struct Item {
    Reference reference;
    ByteRange range;
  };

  // Reads all items, neighbours of a pack in one go, and calls `visit` with each one's index and
  // plain bytes, in no particular order. None of them may be longer than `max_length`. Throws
  // kCorrupt, naming backup, range and pack, for whatever is not as it was written, or if `visit`
  // does; else what `visit` and ObjectStore::get_range throw.
  using Visit = std::function<void(std::size_t index, std::span<const std::byte> plain)>;
  void read(std::span<const Item> items, std::size_t max_length, const Visit& visit);

  // Throws as read() of a chunk, but looks no further than into the pack's footer.
  void check_place(const Item& item);

 private:
  // An item whose place in its pack is known.
  struct Placed {
    std::size_t index;
    PackSlot slot;
  };

  static PackSlot place(const PackFooter& footer, const Reference& reference,
                        std::size_t max_length);
  void read_from_pack(std::span<const std::size_t> indices, std::span<const Item> items,
                      std::size_t max_length, const Visit& visit);
  bool read_run(const std::string& key, std::span<const Placed> run, std::span<const Item> items,
                std::size_t max_length, const Visit& visit);
  // Runs `action`; what it throws gets the item's backup, range and pack before it.
  template <typename Action>
  auto about(const Item& item, Action&& action) const;

  ObjectStore& objects_;
  const BackupRecord& record_;
  PackFooters& footers_;
  FrameDecoder decoder_;
  std::vector<std::byte> run_;
};

}  // namespace convoy
