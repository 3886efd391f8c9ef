#include "backup/tree_update.h"

#include <algorithm>

#include "backup/progress.h"
#include "base/digest.h"

namespace convoy {
namespace {

// Nodes of one level that are read together, about: a store that is far away answers one request
// as late as a dozen. Each takes 20 KiB, on each level.
constexpr std::size_t kNodesAtOnce = 256;

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
  if (parts_.ranges.all().empty() && height == parts_.shape.height() && !is_repair() &&
      parts_.reuse == NodeReuse::kKeepNodes)
    return root;  // unread; of another size, its last chunk would be in a range
  const Visited top{.first = 0, .old = old_root(root, height)};
  return update(parts_.shape.height() - 1, std::span(&top, 1))[0];
}

TreeUpdate::OldNode TreeUpdate::old_root(const std::optional<Reference>& root,
                                         std::uint32_t height) {
  const std::uint32_t top = parts_.shape.height() - 1;
  std::uint32_t level = height - 1;
  TreeNode above;  // as if there were a node with the root as its first entry
  above.entries[0] = root;
  const auto read_first = [&] {
    const PackReader::Item item = item_of(level, 0, *above.entries[0]);
    return read_nodes(level, std::span(&item, 1))[0];
  };
  constexpr OldNode kLost{.reference = {}, .node = {}, .level = 0, .lost = true};
  while (above.entries[0] && level > top) {  // the volume has shrunk: only the leftmost part stays
    const std::optional<TreeNode> node = read_first();
    if (!node) return kLost;
    release(*above.entries[0]);
    drop(level - 1, 0, *node, present_places(*node, 1));
    above.entries[0] = node->entries[0];
    --level;
  }
  if (!above.entries[0]) return {};
  if (level < top) return {.reference = std::nullopt, .node = above, .level = level + 1};
  const std::optional<TreeNode> node = read_first();
  if (!node) return kLost;
  return {.reference = above.entries[0], .node = *node, .level = top};
}

std::vector<std::optional<Reference>> TreeUpdate::update(std::uint32_t level,
                                                         std::span<const Visited> nodes) {
  if (level == 0) return update_leaves(nodes);
  std::vector<std::optional<Reference>> references;
  while (!nodes.empty()) {
    check_stop(parts_.stop, "backup");
    std::vector<Parent> parents;
    std::size_t children = 0;
    while (parents.size() < nodes.size() && children < kNodesAtOnce) {
      parents.push_back(choose_children(level, nodes[parents.size()]));
      children += parents.back().visited.size();
    }
    const auto updated = update(level - 1, read_children(level - 1, parents));
    auto next = updated.begin();
    for (Parent& parent : parents) {
      for (const std::size_t place : parent.visited) parent.node.entries[place] = *next++;
      references.push_back(finish(level, parent.old->reference, parent.node));
    }
    nodes = nodes.subspan(parents.size());
  }
  return references;
}

// Many at a time, so that there is work for every CPU.
std::vector<std::optional<Reference>> TreeUpdate::update_leaves(std::span<const Visited> nodes) {
  std::vector<LeafUpdate> updates;
  for (const auto& [first, old] : nodes) {
    updates.push_back({.first = first, .ranges = ranges_in_leaf(first, old), .leaf = old.node});
    for (auto& entry : updates.back().leaf.entries) {
      if (is_unwanted(entry)) entry.reset();
    }
  }
  parts_.update_leaves(updates);
  std::vector<std::optional<Reference>> references;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    auto& [first, ranges, leaf] = updates[i];
    // The volume may have shrunk.
    const std::uint64_t chunk_count = parts_.shape.chunk_count();
    for (std::uint64_t place = std::max(chunk_count, first) - first; place < kTreeFanout; ++place)
      leaf.entries[place].reset();
    count_changes(nodes[i].old.node, leaf);
    references.push_back(finish(0, nodes[i].old.reference, leaf));
  }
  return references;
}

// Where something is broken, it is read besides what the plan says.
std::vector<ChunkRange> TreeUpdate::ranges_in_leaf(std::uint64_t first, const OldNode& old) const {
  const auto planned = parts_.ranges.overlapping(first, first + kTreeFanout);
  if (!is_repair()) return {planned.begin(), planned.end()};
  std::vector<ChunkRange> ranges;
  const std::uint64_t end = std::min(first + kTreeFanout, parts_.shape.chunk_count());
  for (std::uint64_t chunk = first; chunk < end; ++chunk) {
    std::optional<SourceKind> kind;
    if (old.lost || is_unwanted(old.node.entries[chunk - first])) kind = SourceKind::kRead;
    const auto plan = parts_.ranges.overlapping(chunk, chunk + 1);
    if (!plan.empty()) kind = plan[0].kind;
    if (!kind) continue;
    if (!ranges.empty() && ranges.back().end == chunk && ranges.back().kind == *kind)
      ++ranges.back().end;
    else
      ranges.push_back({.first = chunk, .end = chunk + 1, .kind = *kind});
  }
  return ranges;
}

void TreeUpdate::count_changes(const TreeNode& old, const TreeNode& leaf) {
  for (std::size_t place = 0; place < kTreeFanout; ++place) {
    const auto& entry = leaf.entries[place];
    if (entry == old.entries[place] && !is_repair()) continue;
    if (entry) parts_.ledger.retain(entry->pack);
    if (old.entries[place]) release(*old.entries[place]);
  }
}

bool TreeUpdate::is_unwanted(const std::optional<Reference>& reference) const {
  return reference && is_repair() && parts_.is_unwanted(*reference);
}

void TreeUpdate::release(const Reference& reference) {
  if (!is_repair()) parts_.ledger.release(reference.pack);
}

TreeUpdate::Parent TreeUpdate::choose_children(std::uint32_t level, const Visited& visited) {
  const auto& [first, old] = visited;
  const std::uint64_t span = chunks_under(level - 1);
  const std::uint64_t chunk_count = parts_.shape.chunk_count();
  Parent parent{.first = first, .old = &old};
  Places dropped;
  for (std::size_t place = 0; place < kTreeFanout; ++place) {
    const auto& old_child = old.node.entries[place];
    const std::uint64_t child = first + place * span;
    if (child >= chunk_count || parts_.ranges.zero(child, std::min(child + span, chunk_count))) {
      if (old_child) dropped.push_back(place);
    } else if (must_visit(old_child, old, level, child)) {
      parent.visited.push_back(place);
    } else {
      parent.node.entries[place] = old_child;
    }
  }
  if (!dropped.empty()) drop(old.level - 1, first, old.node, dropped);
  return parent;
}

bool TreeUpdate::must_visit(const std::optional<Reference>& old_child, const OldNode& old,
                            std::uint32_t level, std::uint64_t child_first) const {
  const std::uint64_t child_end = child_first + chunks_under(level - 1);
  if (old.lost || !parts_.ranges.overlapping(child_first, child_end).empty()) return true;
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
    written = parts_.tree_packs.add_plain(bytes, digest);
    parts_.ledger.retain(written->pack);
  }
  if (old) release(*old);
  return written;
}

std::vector<TreeUpdate::Visited> TreeUpdate::read_children(std::uint32_t level,
                                                           std::span<const Parent> parents) {
  std::vector<Visited> children;
  std::vector<PackReader::Item> items;
  std::vector<std::size_t> child_of_item;
  for (const auto& [first, old, node, visited] : parents) {
    for (const std::size_t place : visited) {
      const std::uint64_t child_first = first + place * chunks_under(level);
      OldNode child;
      if (old->lost) {
        child.lost = true;
      } else if (old->level <= level) {  // of which only the first can be there
        if (place == 0) child = *old;
      } else if (const auto& reference = old->node.entries[place]) {
        child = {.reference = reference, .node = {}, .level = level};
        child_of_item.push_back(children.size());
        items.push_back(item_of(level, child_first, *reference));
      }
      children.push_back({.first = child_first, .old = child});
    }
  }
  const auto nodes = read_nodes(level, items);
  for (std::size_t i = 0; i < items.size(); ++i) {
    OldNode& child = children[child_of_item[i]].old;
    if (nodes[i])
      child.node = *nodes[i];
    else
      child = {.reference = {}, .node = {}, .level = 0, .lost = true};
  }
  return children;
}

PackReader::Item TreeUpdate::item_of(std::uint32_t level, std::uint64_t first,
                                     const Reference& reference) const {
  const std::uint64_t chunk_size = parts_.shape.chunk_size();
  return {.reference = reference,
          .range = {first * chunk_size, (first + chunks_under(level)) * chunk_size}};
}

std::vector<std::optional<TreeNode>> TreeUpdate::read_nodes(
    std::uint32_t level, std::span<const PackReader::Item> items) {
  std::vector<PackReader::Item> wanted;
  std::vector<std::size_t> index_of_wanted;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (is_unwanted(items[i].reference)) continue;
    wanted.push_back(items[i]);
    index_of_wanted.push_back(i);
  }
  std::vector<std::optional<TreeNode>> nodes(items.size());
  DamageSink lost;  // without one, damage is thrown
  if (is_repair()) lost = [](const Damage&) {};
  if (wanted.empty()) return nodes;
  parts_.parent_nodes->read(
      level, wanted, [&](std::size_t i, const TreeNode& node) { nodes[index_of_wanted[i]] = node; },
      lost);
  return nodes;
}

void TreeUpdate::drop(std::uint32_t level, std::uint64_t first, const TreeNode& parent,
                      const Places& places) {
  if (is_repair()) return;  // nothing is in the ledger yet
  check_stop(parts_.stop, "backup");
  std::vector<PackReader::Item> items;
  for (const std::size_t place : places)
    items.push_back(item_of(level, first + place * chunks_under(level), *parent.entries[place]));
  const auto nodes = read_nodes(level, items);
  for (std::size_t i = 0; i < places.size(); ++i) {
    release(*parent.entries[places[i]]);
    const Places under = present_places(*nodes[i]);
    if (level > 0) {
      drop(level - 1, first + places[i] * chunks_under(level), *nodes[i], under);
      continue;
    }
    for (const std::size_t place : under) release(*nodes[i]->entries[place]);
  }
}

}  // namespace convoy
