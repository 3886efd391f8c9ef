// What of a backup can't be read.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

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

// Neighbouring chunks of one pack are one entry, with the reason of the first, in whatever order
// they are added; unless something of another pack begins there, too. Thread-safe.
class DamageList {
 public:
  void add(Damage damage);
  // All that was added, by place in the volume. Nothing is left.
  std::vector<Damage> take();

 private:
  std::mutex mutex_;
  std::multimap<std::uint64_t, Damage> damages_;  // by place in the volume
};

// As PackReader::read, but what is damaged goes to `damaged`, and all the rest is read.
void read_despite_damage(PackReader& packs, std::span<const PackReader::Item> items,
                         std::size_t max_length, const PackReader::Visit& visit,
                         const DamageSink& damaged);

}  // namespace convoy
