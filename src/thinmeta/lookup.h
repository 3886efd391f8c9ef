// Looking up one key of a B-tree.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "thinmeta/node.h"

namespace convoy::thinmeta {

struct LeafEntry {
  Node leaf;
  std::size_t index;
};

// The entry of `key`; nothing if there is none. Reads one node per level. Throws as Node::read
// does, and kCorrupt if there is no leaf down to kMaxHeight.
std::optional<LeafEntry> find_entry(BlockReader& reader, const Tree& tree, std::uint64_t key);

// The value of `key`. Value has the tree's value size.
template <typename Value>
std::optional<Value> find_value(BlockReader& reader, const Tree& tree, std::uint64_t key) {
  const std::optional<LeafEntry> entry = find_entry(reader, tree, key);
  return entry ? std::optional(entry->leaf.value<Value>(entry->index)) : std::nullopt;
}

}  // namespace convoy::thinmeta
