#include "thinmeta/node.h"

#include <utility>

#include <fmt/format.h>

#include "base/error.h"

namespace convoy::thinmeta {

Node Node::read(BlockReader& reader, const Tree& tree, std::uint64_t number, KeyRange promised,
                std::optional<NodeKind> expected) {
  try {
    Node node(reader.read(number, BlockKind::kNode), promised);
    node.verify_kind(expected);
    node.verify_header(tree);
    node.verify_keys();
    if (!node.is_leaf()) {
      node.verify_values(reader.end());
    } else if (tree.value_end) {
      node.verify_values(*tree.value_end);
    }
    return node;
  } catch (Error& error) {
    error.add_context(fmt::format("{}, node in block {} for keys {} to {}", tree.name, number,
                                  promised.begin, promised.end - 1));
    throw;
  }
}

Node::Node(Block block, KeyRange promised) : block_(std::move(block)), promised_(promised) {
  const auto header = struct_at<DiskNodeHeader>(block_->bytes(), 0);
  entries_ = header.entries;
  max_entries_ = header.max_entries;
  value_size_ = header.value_size;
  kind_ = header.header.flags == kLeafNode ? NodeKind::kLeaf : NodeKind::kInner;
}

KeyRange Node::child_range(std::size_t index) const {
  return {key(index), index + 1 < entries_ ? key(index + 1) : promised_.end};
}

std::optional<std::size_t> Node::find_not_greater(std::uint64_t wanted) const {
  std::size_t begin = 0;
  std::size_t end = entries_;
  while (begin < end) {
    const std::size_t middle = begin + (end - begin) / 2;
    if (key(middle) <= wanted) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin == 0 ? std::nullopt : std::optional(begin - 1);
}

void Node::verify_kind(std::optional<NodeKind> expected) const {
  const std::uint32_t flags = struct_at<DiskBlockHeader>(block_->bytes(), 0).flags;
  if (flags != kInnerNode && flags != kLeafNode) {
    throw Error(ErrorKind::kCorrupt, "its flags are {:#x}", flags);
  }
  if (expected && kind_ != *expected) {
    throw Error(ErrorKind::kCorrupt, "it is {} the level of the leaves",
                is_leaf() ? "a leaf above" : "an inner node on");
  }
}

// The kernel itself checks less of this when it reads a node, but makes none otherwise.
void Node::verify_header(const Tree& tree) const {
  const auto header = struct_at<DiskNodeHeader>(block_->bytes(), 0);
  const std::uint32_t value_size = is_leaf() ? tree.value_size : kChildSize;
  if (header.value_size != value_size) {
    throw Error(ErrorKind::kCorrupt, "its values have {} bytes, not {}", header.value_size.get(),
                value_size);
  }
  if (header.max_entries > max_entries_of(value_size) || header.max_entries % 3 != 0) {
    throw Error(ErrorKind::kCorrupt, "it says that it has room for {} entries",
                header.max_entries.get());
  }
  if (header.entries > header.max_entries) {
    throw Error(ErrorKind::kCorrupt, "it has {} entries, room is for {}", header.entries.get(),
                header.max_entries.get());
  }
  if (!is_leaf() && header.entries == 0) {
    throw Error(ErrorKind::kCorrupt, "it is an inner node without children");
  }
}

void Node::verify_keys() const {
  for (std::size_t i = 0; i < entries_; ++i) {
    if (i > 0 && key(i) <= key(i - 1)) {
      throw Error(ErrorKind::kCorrupt, "key {} comes after key {}", key(i), key(i - 1));
    }
    if (key(i) < promised_.begin || key(i) >= promised_.end) {
      throw Error(ErrorKind::kCorrupt, "it has key {}", key(i));
    }
  }
}

void Node::verify_values(std::uint64_t end) const {
  for (std::size_t i = 0; i < entries_; ++i) {
    const std::uint64_t found = value<Le64>(i);
    if (found >= end) {
      throw Error(ErrorKind::kCorrupt, "the value of key {} is {:#x}, the end is {:#x}", key(i),
                  found, end);
    }
  }
}

}  // namespace convoy::thinmeta
