// The way through a backup's tree to its chunks, for those who read all of it: restore and verify.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "backup/backup_record.h"
#include "backup/pack_footers.h"
#include "backup/pack_reader.h"
#include "backup/tree_node.h"

namespace convoy {

// A part of a volume whose content in a backup is lost.
struct Damage {
  ByteRange range;      // of the volume
  Reference reference;  // what can't be read: a chunk, or a node above many
  std::string reason;   // for people, naming backup, range and pack
};

// Takes note of damage, from several threads at once. If it is empty, damage is thrown as kCorrupt.
using DamageSink = std::function<void(Damage damage)>;

// Damage in bounded memory: neighbouring chunks of one pack are one entry, with the reason of the
// first. Thread-safe.
class DamageList {
 public:
  void add(Damage damage);
  // All that was added, by place in the volume. Nothing is left.
  std::vector<Damage> take();

 private:
  std::mutex mutex_;
  std::vector<Damage> damages_;
};

// As PackReader::read, but what is damaged goes to `damaged`, and all the rest is read.
void read_despite_damage(PackReader& packs, std::span<const PackReader::Item> items,
                         std::size_t max_length, const PackReader::Visit& visit,
                         const DamageSink& damaged);

// One use, by one thread. All references must outlive it.
class BackupWalk {
 public:
  struct Parts {
    const BackupRecord& record;
    PackReader& nodes;
    DamageSink damaged;
    std::string_view work;  // what is cancelled by `stop`, such as "restore"
    std::stop_token stop;
    // Leaves out the nodes for which it is true, and all that is under them. May be empty.
    std::function<bool(const Reference& node)> known = {};
  };
  explicit BackupWalk(Parts parts) : parts_(std::move(parts)), shape_(parts_.record.shape()) {}

  // Calls `on_leaf` with the chunks of each leaf, from the volume's begin to its end. Throws
  // kCancelled, what PackReader::read throws, and what `on_leaf` throws.
  using OnLeaf = std::function<void(std::span<const PackReader::Item> chunks)>;
  void run(const OnLeaf& on_leaf);

 private:
  std::vector<PackReader::Item> items_of(const TreeNode& node, std::uint64_t first,
                                         std::uint64_t span) const;
  void visit_nodes(std::uint32_t level, std::span<const PackReader::Item> items,
                   const OnLeaf& on_leaf);

  const Parts parts_;
  const TreeShape shape_;
};

// Divides the chunks of a leaf into pieces of neighbours, each for one thread: those of the same
// aligned 4 MiB, if chunks have 64 KiB.
inline constexpr std::size_t kChunksPerPiece = 64;
std::vector<std::vector<PackReader::Item>> pieces_of(std::span<const PackReader::Item> chunks,
                                                     std::uint32_t chunk_size);

// Throws kCorrupt unless a chunk has as many bytes as it stands for.
void check_chunk_length(const PackReader::Item& item, std::span<const std::byte> plain);

}  // namespace convoy
