#include "backup/tree_update.h"

#include <algorithm>

#include "backup/progress.h"
#include "base/digest.h"

namespace convoy {
namespace {

std::vector<std::size_t> present_places(const TreeNode& node, std::size_t from = 0) {
  std::vector<std::size_t> places;
  for (std::size_t place = from; place < kTreeFanout; ++place) {
    if (node.entries[place]) places.push_back(place);
  }
  return places;
}

}  // namespace

std::optional<Reference> TreeUpdate::run(const std::optional<Reference>& root,
                                         std::uint32_t height) {
  return update(parts_.shape.height() - 1, 0, old_root(root, height));
}

TreeUpdate::OldNode TreeUpdate::old_root(const std::optional<Reference>& root,
                                         std::uint32_t height) {
  const std::uint32_t top = parts_.shape.height() - 1;
  std::uint32_t level = height - 1;
  TreeNode above;  // as if there were a node with the root as its first entry
  above.entries[0] = root;
  while (above.entries[0] && level > top) {  // the volume has shrunk: only the leftmost part stays
    const TreeNode node = read_nodes(level, 0, above, {0})[0];
    parts_.ledger.release(above.entries[0]->pack);
    drop(level - 1, 0, node, present_places(node, 1));
    above.entries[0] = node.entries[0];
    --level;
  }
  if (!above.entries[0]) return {};
  if (level < top) return {.reference = std::nullopt, .node = above, .level = level + 1};
  return {.reference = above.entries[0], .node = read_nodes(top, 0, above, {0})[0], .level = top};
}

std::optional<Reference> TreeUpdate::update(std::uint32_t level, std::uint64_t first,
                                            const OldNode& old) {
  check_stop(parts_.stop, "backup");
  const TreeNode node =
      level == 0 ? update_leaf(first, old.node) : update_children(level, first, old);
  return finish(level, old.reference, node);
}

TreeNode TreeUpdate::update_leaf(std::uint64_t first, const TreeNode& old) {
  TreeNode leaf = old;
  const auto ranges = parts_.ranges.overlapping(first, first + kTreeFanout);
  if (!ranges.empty()) parts_.update_leaf(first, ranges, leaf);
  for (std::size_t place = 0; place < kTreeFanout; ++place) {
    auto& entry = leaf.entries[place];
    if (first + place >= parts_.shape.chunk_count()) entry.reset();  // the volume has shrunk
    if (entry == old.entries[place]) continue;
    if (entry) parts_.ledger.retain(entry->pack);
    if (old.entries[place]) parts_.ledger.release(old.entries[place]->pack);
  }
  return leaf;
}

TreeNode TreeUpdate::update_children(std::uint32_t level, std::uint64_t first, const OldNode& old) {
  const std::uint64_t span = chunks_under(level - 1);
  const std::uint64_t chunk_count = parts_.shape.chunk_count();
  TreeNode node;
  Places visited, dropped;
  for (std::size_t place = 0; place < kTreeFanout; ++place) {
    const auto& old_child = old.node.entries[place];
    const std::uint64_t child = first + place * span;
    if (child >= chunk_count || parts_.ranges.zero(child, std::min(child + span, chunk_count))) {
      if (old_child) dropped.push_back(place);
    } else if (must_visit(old_child, old, level, child)) {
      visited.push_back(place);
    } else {
      node.entries[place] = old_child;
    }
  }
  if (!dropped.empty()) drop(old.level - 1, first, old.node, dropped);

  const std::vector<OldNode> children = read_children(level - 1, first, old, visited);
  for (std::size_t i = 0; i < visited.size(); ++i) {
    node.entries[visited[i]] = update(level - 1, first + visited[i] * span, children[i]);
  }
  return node;
}

bool TreeUpdate::must_visit(const std::optional<Reference>& old_child, const OldNode& old,
                            std::uint32_t level, std::uint64_t child_first) const {
  const std::uint64_t child_end = child_first + chunks_under(level - 1);
  if (!parts_.ranges.overlapping(child_first, child_end).empty()) return true;
  // A smaller volume's root below the place of a child needs nodes above it.
  return old_child && (parts_.reuse == NodeReuse::kWriteAll || old.level < level);
}

std::optional<Reference> TreeUpdate::finish(std::uint32_t level,
                                            const std::optional<Reference>& old,
                                            const TreeNode& node) {
  std::optional<Reference> written;
  if (!node.empty()) {
    const std::vector<std::byte> bytes = encode_node(node, level);
    const Digest digest = sha256(bytes);
    if (old && old->digest == digest && parts_.reuse == NodeReuse::kKeepNodes) return old;
    written = parts_.tree_packs.add(bytes, digest);
    parts_.ledger.retain(written->pack);
  }
  if (old) parts_.ledger.release(old->pack);
  return written;
}

std::vector<TreeUpdate::OldNode> TreeUpdate::read_children(std::uint32_t level, std::uint64_t first,
                                                           const OldNode& old,
                                                           const Places& places) {
  std::vector<OldNode> children(places.size());
  if (old.level <= level) {  // of which only the first can be there
    if (!places.empty() && places[0] == 0) children[0] = old;
    return children;
  }
  Places present;
  std::ranges::copy_if(places, std::back_inserter(present),
                       [&](std::size_t place) { return old.node.entries[place].has_value(); });
  const std::vector<TreeNode> nodes = read_nodes(level, first, old.node, present);
  for (std::size_t i = 0, next = 0; i < places.size(); ++i) {
    const auto& reference = old.node.entries[places[i]];
    if (reference) children[i] = {.reference = reference, .node = nodes[next++], .level = level};
  }
  return children;
}

std::vector<TreeNode> TreeUpdate::read_nodes(std::uint32_t level, std::uint64_t first,
                                             const TreeNode& parent, const Places& places) {
  const std::uint64_t span = chunks_under(level) * parts_.shape.chunk_size();
  const std::uint64_t begin = first * parts_.shape.chunk_size();
  std::vector<PackReader::Item> items;
  items.reserve(places.size());
  for (const std::size_t place : places) {
    items.push_back({.reference = *parent.entries[place],
                     .range = {begin + place * span, begin + (place + 1) * span}});
  }
  std::vector<TreeNode> nodes(places.size());
  if (items.empty()) return nodes;
  parts_.parent_packs->read(items, kMaxNodeSize,
                            [&](std::size_t index, std::span<const std::byte> bytes) {
                              nodes[index] = decode_node(bytes, level);
                            });
  return nodes;
}

void TreeUpdate::drop(std::uint32_t level, std::uint64_t first, const TreeNode& parent,
                      const Places& places) {
  check_stop(parts_.stop, "backup");
  const std::vector<TreeNode> nodes = read_nodes(level, first, parent, places);
  for (std::size_t i = 0; i < places.size(); ++i) {
    parts_.ledger.release(parent.entries[places[i]]->pack);
    const Places under = present_places(nodes[i]);
    if (level > 0) {
      drop(level - 1, first + places[i] * chunks_under(level), nodes[i], under);
      continue;
    }
    for (const std::size_t place : under) {
      parts_.ledger.release(nodes[i].entries[place]->pack);
    }
  }
}

}  // namespace convoy
