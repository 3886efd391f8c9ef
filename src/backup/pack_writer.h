// Gathers chunks or nodes in memory until they fill a pack, and puts that.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backup/backup_record.h"
#include "backup/frame.h"
#include "backup/layout.h"
#include "backup/ordered_workers.h"
#include "backup/pack.h"
#include "backup/spare_buffers.h"
#include "objectstore/object_store.h"

namespace convoy {

// Holds a pack that is being filled and those that are on their way to the store, one for each of
// its threads. Used by one thread at a time.
class PackWriter {
 public:
  // Writes packs "<first.backup>/<n>" of one kind, n counting from first.number, into the lineage,
  // `puts_at_once` of them at a time. `objects` must outlive the writer.
  PackWriter(ObjectStore& objects, const Uuid& lineage, const PackName& first,
             unsigned puts_at_once);

  // Adds a frame, whose plain bytes `digest` is of, and says where it will be. It is in the store
  // when finish() has returned. Throws what ObjectStore::put threw, for this pack or one before;
  // the writer is then good for nothing but names().
  Reference add(std::span<const std::byte> frame, const Digest& digest);

  // As add(), of bytes that are not in a frame yet.
  Reference add_plain(std::span<const std::byte> plain, const Digest& digest);

  // Puts what is left, and waits until all packs are in the store. Throws as add().
  void finish();

  // The packs that were handed to the store, with their sizes.
  const std::vector<std::pair<PackName, std::uint64_t>>& written() const { return written_; }

  // Waits for the puts that have begun, gives up all others, and says of which packs something may
  // be in the store.
  std::vector<PackName> stop();

 private:
  struct Pack {
    std::string key;
    std::vector<std::byte> bytes;
  };

  void put();

  Uuid lineage_;
  PackName current_;
  FrameEncoder encoder_;
  std::vector<std::byte> frame_;
  SpareBuffers spare_;
  std::vector<std::byte> frames_;
  std::vector<PackSlot> slots_;
  std::vector<std::pair<PackName, std::uint64_t>> written_;
  OrderedWorkers<Pack> puts_;
};

}  // namespace convoy
