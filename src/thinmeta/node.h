// One verified node of a B-tree, and what must be known of a tree to verify its nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "thinmeta/block_reader.h"
#include "thinmeta/disk_format.h"

namespace convoy::thinmeta {

// A node has at least 84 entries as the kernel balances them (a third of 252), so 9 levels hold
// 2^57 keys, more than a device has blocks. A tree that is higher than this runs in a circle.
inline constexpr unsigned kMaxHeight = 16;

// [begin, end)
struct KeyRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

enum class NodeKind { kInner, kLeaf };

struct Tree {
  std::string name;                             // for messages: "mappings of thin device 5"
  std::uint64_t root = 0;                       // block of its root
  std::uint32_t value_size = 0;                 // of its leaves, in bytes
  std::uint64_t key_end = 0;                    // all keys are below
  std::optional<std::uint64_t> value_end = {};  // values of 8 bytes are below, if this is set
};

// Everything that its accessors give has been verified.
class Node {
 public:
  // Reads the node in block `number`, which by the word of its parent holds no keys but those in
  // `promised` (the root's may hold [0, tree.key_end)). `expected` is set if all leaves being on
  // one level makes the kind known. `number` need not be valid. Throws kCorrupt or kIo; both name
  // tree, node and promised keys.
  static Node read(BlockReader& reader, const Tree& tree, std::uint64_t number, KeyRange promised,
                   std::optional<NodeKind> expected = std::nullopt);

  bool is_leaf() const { return kind_ == NodeKind::kLeaf; }
  // How many entries there are. An inner node has at least one.
  std::size_t size() const { return entries_; }

  // Strictly ascending.
  std::uint64_t key(std::size_t index) const {
    return struct_at<Le64>(block_->bytes(), sizeof(DiskNodeHeader) + index * kKeySize);
  }

  // Of a leaf; Value has the tree's value size.
  template <typename Value>
  Value value(std::size_t index) const {
    return struct_at<Value>(block_->bytes(), value_offset(index));
  }

  // Of an inner node: a child's block, below the reader's end, and the keys that it may hold.
  std::uint64_t child(std::size_t index) const { return value<Le64>(index); }
  KeyRange child_range(std::size_t index) const;

  // The last entry whose key is not greater than `wanted`; nothing if all are.
  std::optional<std::size_t> find_not_greater(std::uint64_t wanted) const;

 private:
  Node(Block block, KeyRange promised);

  std::size_t value_offset(std::size_t index) const {
    return sizeof(DiskNodeHeader) + max_entries_ * kKeySize + index * value_size_;
  }
  void verify_kind(std::optional<NodeKind> expected) const;
  void verify_header(const Tree& tree) const;
  void verify_keys() const;
  void verify_values(std::uint64_t end) const;

  Block block_;
  KeyRange promised_;
  std::size_t entries_;
  std::size_t max_entries_;
  std::size_t value_size_;
  NodeKind kind_;
};

}  // namespace convoy::thinmeta
