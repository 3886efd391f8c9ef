#include "thinmeta/lookup.h"

#include "base/error.h"

namespace convoy::thinmeta {

std::optional<LeafEntry> find_entry(BlockReader& reader, const Tree& tree, std::uint64_t key) {
  std::uint64_t number = tree.root;
  KeyRange range = {0, tree.key_end};
  for (unsigned level = 0; level < kMaxHeight; ++level) {
    Node node = Node::read(reader, tree, number, range);
    const std::optional<std::size_t> index = node.find_not_greater(key);
    if (!index) return std::nullopt;
    if (node.is_leaf()) {
      if (node.key(*index) != key) return std::nullopt;
      return LeafEntry{std::move(node), *index};
    }
    number = node.child(*index);
    range = node.child_range(*index);
  }
  throw Error(ErrorKind::kCorrupt,
              "{}, node in block {} for keys {} to {}: it is below level {}, where there should be "
              "leaves",
              tree.name, number, range.begin, range.end, kMaxHeight);
}

}  // namespace convoy::thinmeta
