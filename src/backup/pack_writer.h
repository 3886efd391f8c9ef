// Gathers chunks or nodes in memory until they fill a pack, and puts that.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backup/backup_record.h"
#include "backup/frame.h"
#include "backup/layout.h"
#include "backup/pack.h"
#include "objectstore/object_store.h"

namespace convoy {

// Holds one pack in memory. Not thread-safe.
class PackWriter {
 public:
  // Writes packs "<first.backup>-<n>" of one kind, n counting from first.number, into the lineage.
  // `objects` must outlive the writer.
  PackWriter(ObjectStore& objects, const Uuid& lineage, const PackName& first);

  // Adds the plain bytes that `digest` is of, and says where they will be. They are in the store
  // when finish() has returned. Throws what ObjectStore::put throws; the writer is then good for
  // nothing but names().
  Reference add(std::span<const std::byte> plain, const Digest& digest);

  // Puts what is left.
  void finish();

  // The packs that were put, with their sizes.
  const std::vector<std::pair<PackName, std::uint64_t>>& written() const { return written_; }
  // Every pack of which something may be in the store, after an error too.
  std::vector<PackName> names() const;

 private:
  void put();

  ObjectStore& objects_;
  Uuid lineage_;
  PackName first_;
  PackName current_;
  FrameEncoder encoder_;
  std::vector<std::byte> frames_;
  std::vector<PackSlot> slots_;
  std::vector<std::pair<PackName, std::uint64_t>> written_;
};

}  // namespace convoy
