#include "thinmeta/check.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "thinmeta/disk_format.h"
#include "thinmeta/node.h"
#include "thinmeta/space_map.h"
#include "thinmeta/trees.h"

namespace convoy::thinmeta {
namespace {

// How often blocks are referred to. Takes memory for those that are, whatever the size that a
// damaged device claims to have.
class ReferenceCounts {
 public:
  // The count before.
  std::uint32_t add(std::uint64_t block) { return pages_[block / kPage][block % kPage]++; }

  std::uint32_t of(std::uint64_t block) const {
    const auto page = pages_.find(block / kPage);
    return page == pages_.end() ? 0 : page->second[block % kPage];
  }

 private:
  static constexpr std::uint64_t kPage = 256;
  std::unordered_map<std::uint64_t, std::array<std::uint32_t, kPage>> pages_;
};

class Checker {
 public:
  Checker(BlockReader& reader, const Superblock& superblock, const CheckObserver& observer)
      : reader_(reader), superblock_(superblock), observer_(observer) {}

  void run(CheckDepth depth) {
    observer_.begin("superblock");
    if (depth == CheckDepth::kSuperblock) return;
    metadata_counts_.add(kSuperblockNumber);
    observer_.begin("devices tree");
    visit_details(superblock_);
    observer_.begin(depth == CheckDepth::kDevices ? "top level of mapping tree" : "mapping tree");
    visit_mappings(superblock_, depth);
    if (depth != CheckDepth::kSpaceMaps || damaged_) return;
    check_space_maps();
  }

 private:
  using LeafVisitor = std::function<void(const Node&)>;

  void report(Finding::Kind kind, std::string sentence) {
    if (kind == Finding::Kind::kDamage) damaged_ = true;
    observer_.found({kind, std::move(sentence)});
  }

  // Runs `action`; damage that it comes upon is reported, and ends it alone.
  template <typename Action>
  void guarded(Action&& action) {
    try {
      std::forward<Action>(action)();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt) throw;
      report(Finding::Kind::kDamage, error.message());
    }
  }

  // --- Trees ---

  // Counts all references to the tree's nodes, and gives `visit` each leaf once, wherever it is
  // shared. What lies below a damaged node is reported as lost.
  void visit_tree(const Tree& tree, const LeafVisitor& visit) {
    std::optional<unsigned> leaf_depth;  // all leaves are on one level
    visit_node(tree, tree.root, {0, tree.key_end}, 1, leaf_depth, visit);
  }

  void visit_node(const Tree& tree, std::uint64_t block, KeyRange promised, unsigned depth,
                  std::optional<unsigned>& leaf_depth, const LeafVisitor& visit) {
    // A subtree that is shared was visited before.
    if (metadata_counts_.add(block) > 0) {
      if (std::ranges::find(way_, block) != way_.end())
        report(Finding::Kind::kDamage,
               fmt::format("{}, node in block {} for keys {} to {}: it is a node below itself",
                           tree.name, block, promised.begin, promised.end));
      return;
    }
    way_.push_back(block);
    visit_new_node(tree, block, promised, depth, leaf_depth, visit);
    way_.pop_back();
  }

  void visit_new_node(const Tree& tree, std::uint64_t block, KeyRange promised, unsigned depth,
                      std::optional<unsigned>& leaf_depth, const LeafVisitor& visit) {
    guarded([&] {
      std::optional<NodeKind> expected;
      if (leaf_depth) expected = depth == *leaf_depth ? NodeKind::kLeaf : NodeKind::kInner;
      const Node node = Node::read(reader_, tree, block, promised, expected);
      if (node.is_leaf()) {
        leaf_depth = depth;
        visit(node);
        return;
      }
      if (depth == kMaxHeight) {
        throw Error(ErrorKind::kCorrupt, "{}: there is no leaf down to level {}", tree.name,
                    kMaxHeight);
      }
      read_children_ahead(node);
      for (std::size_t i = 0; i < node.size(); ++i)
        visit_node(tree, node.child(i), node.child_range(i), depth + 1, leaf_depth, visit);
    });
  }

  void read_children_ahead(const Node& node) {
    std::vector<std::uint64_t> blocks;
    for (std::size_t i = 0; i < node.size(); ++i) {
      if (metadata_counts_.of(node.child(i)) == 0) blocks.push_back(node.child(i));
    }
    reader_.read_ahead(std::move(blocks));
  }

  void visit_details(const Superblock& superblock) {
    visit_tree(details_tree(superblock), [&](const Node&) {});
  }

  void visit_mappings(const Superblock& superblock, CheckDepth depth) {
    std::vector<std::pair<std::uint32_t, std::uint64_t>> roots;
    visit_tree(roots_tree(superblock, reader_.end()), [&](const Node& leaf) {
      for (std::size_t i = 0; i < leaf.size(); ++i)
        roots.emplace_back(static_cast<std::uint32_t>(leaf.key(i)), leaf.value<Le64>(i));
    });
    if (depth == CheckDepth::kDevices) return;
    for (const auto& [thin_id, root] : roots) {
      visit_tree(mapping_tree(superblock, thin_id, root), [&](const Node& leaf) {
        for (std::size_t i = 0; i < leaf.size(); ++i)
          data_counts_.add(leaf.value<DiskMapping>(i) >> kMappingTimeBits);
      });
    }
  }

  // --- Space maps ---

  struct SpaceMap {
    const char* name;
    const SpaceMapRoot* root;
    std::vector<std::uint64_t> bitmaps;                          // blocks
    std::unordered_map<std::uint64_t, std::uint32_t> overflows;  // counts of 3 and more
  };

  void check_space_maps() {
    observer_.begin("space map counts");
    if (superblock_.held_root != 0) {
      metadata_counts_.add(superblock_.held_root);
      guarded([&] {
        const Superblock held = read_held_superblock(reader_, superblock_);
        visit_details(held);
        visit_mappings(held, CheckDepth::kMappings);
      });
    }
    // Both belong to the metadata, so they are counted before either is compared.
    SpaceMap data = {"data", &superblock_.data_space_map, {}, {}};
    SpaceMap metadata = {"metadata", &superblock_.metadata_space_map, {}, {}};
    read_index_tree(data);
    guarded([&] { read_index_block(metadata); });
    read_overflows(data);
    read_overflows(metadata);
    for (const SpaceMap* const map : {&data, &metadata}) {
      for (const std::uint64_t block : map->bitmaps) metadata_counts_.add(block);
    }
    if (damaged_) return;
    compare(data, data_counts_);
    compare(metadata, metadata_counts_);
  }

  void read_index_tree(SpaceMap& map) {
    const Tree tree = {fmt::format("index of the {} space map", map.name), map.root->bitmap_root,
                       sizeof(DiskBitmapEntry), bitmaps_of(*map.root)};
    visit_tree(tree, [&](const Node& leaf) {
      for (std::size_t i = 0; i < leaf.size(); ++i) {
        if (leaf.key(i) != map.bitmaps.size()) {
          throw Error(ErrorKind::kCorrupt, "{}: bitmap {} is missing", tree.name,
                      map.bitmaps.size());
        }
        map.bitmaps.push_back(leaf.value<DiskBitmapEntry>(i).block);
      }
    });
    if (map.bitmaps.size() < bitmaps_of(*map.root)) {
      report(Finding::Kind::kDamage, fmt::format("{}: it has {} bitmaps, not {}", tree.name,
                                                 map.bitmaps.size(), bitmaps_of(*map.root)));
    }
  }

  void read_index_block(SpaceMap& map) {
    metadata_counts_.add(map.root->bitmap_root);
    map.bitmaps = read_bitmap_index(reader_, *map.root);
  }

  void read_overflows(SpaceMap& map) {
    const Tree tree = {fmt::format("reference counts of the {} space map", map.name),
                       map.root->reference_count_root, sizeof(Le32), map.root->blocks};
    visit_tree(tree, [&](const Node& leaf) {
      for (std::size_t i = 0; i < leaf.size(); ++i)
        map.overflows.emplace(leaf.key(i), leaf.value<Le32>(i));
    });
  }

  void compare(const SpaceMap& map, const ReferenceCounts& expected) {
    for (std::size_t i = 0; i < map.bitmaps.size(); ++i) {
      guarded([&] {
        with_context(
            fmt::format("bitmap {} of the {} space map, block {}", i, map.name, map.bitmaps[i]),
            [&] { compare_bitmap(map, i, expected); });
      });
    }
  }

  void compare_bitmap(const SpaceMap& map, std::uint64_t index, const ReferenceCounts& expected) {
    if (index % kBitmapsAhead == 0) {
      const auto begin = map.bitmaps.begin() + static_cast<std::ptrdiff_t>(index);
      const auto left = map.bitmaps.end() - begin;
      reader_.read_ahead({begin, begin + std::min<std::ptrdiff_t>(left, kBitmapsAhead)});
    }
    const Block bitmap = reader_.read(map.bitmaps[index], BlockKind::kBitmap);
    const std::uint64_t begin = index * kBlocksPerBitmap;
    const std::uint64_t end = std::min(begin + kBlocksPerBitmap, map.root->blocks);
    for (std::uint64_t block = begin; block < end; ++block) {
      std::uint32_t count = count_in_bitmap(*bitmap, block - begin);
      if (count == kCountInTree) {
        const auto overflow = map.overflows.find(block);
        if (overflow == map.overflows.end())
          throw Error(ErrorKind::kCorrupt, "the reference count of block {} is nowhere", block);
        count = overflow->second;
      }
      const std::uint32_t wanted = expected.of(block);
      if (count == wanted) continue;
      report(count > wanted ? Finding::Kind::kLeak : Finding::Kind::kDamage,
             fmt::format("the {} space map gives block {} a reference count of {}, it should be {}",
                         map.name, block, count, wanted));
    }
  }

  static constexpr std::ptrdiff_t kBitmapsAhead = 256;

  BlockReader& reader_;
  const Superblock& superblock_;
  const CheckObserver& observer_;
  bool damaged_ = false;
  std::vector<std::uint64_t> way_;  // the nodes from a root to the one that is being visited
  ReferenceCounts metadata_counts_;
  ReferenceCounts data_counts_;
};

}  // namespace

void check_metadata(BlockReader& reader, const Superblock& superblock, CheckDepth depth,
                    const CheckObserver& observer) {
  Checker(reader, superblock, observer).run(depth);
}

}  // namespace convoy::thinmeta
