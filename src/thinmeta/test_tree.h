// Mapping trees that share nodes, as the kernel's copy on write makes them, in a TestImage.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "thinmeta/test_image.h"

namespace convoy::thinmeta {

// Block of a device -> value.
using Mappings = std::map<std::uint64_t, std::uint64_t>;

// How many entries a node may have, if it isn't the root. The kernel's are 84 to 252, which
// thin_delta(8) insists on. Fewer make high trees of few mappings.
struct Fanout {
  std::size_t least;
  std::size_t most;  // at least twice as many
};

class TestTree {
 public:
  TestTree(TestImage& image, Fanout fanout, std::mt19937_64& random)
      : image_(&image), random_(&random), fanout_(fanout) {
    update({});
  }

  // Makes the tree one of `mappings`. Nodes whose content does not change stay where they are;
  // others are written anew, cut at random places. Copies made before share with it what stayed.
  void update(const Mappings& mappings) {
    Entries entries(mappings.begin(), mappings.end());
    for (std::size_t level = 0;; ++level) {
      if (level == levels_.size()) levels_.emplace_back();
      levels_[level] = rewrite(level, levels_[level], entries);
      entries.clear();
      for (const TestNode& node : levels_[level]) entries.emplace_back(node.begin, node.block);
      if (entries.size() == 1) {
        levels_.resize(level + 1);
        return;
      }
    }
  }

  std::uint64_t root() const { return levels_.back().front().block; }
  std::size_t height() const { return levels_.size(); }

  // The blocks of all its nodes.
  std::set<std::uint64_t> nodes() const {
    std::set<std::uint64_t> blocks;
    for (const auto& level : levels_) {
      for (const TestNode& node : level) blocks.insert(node.block);
    }
    return blocks;
  }

  // The blocks on the way to the first leaf.
  std::set<std::uint64_t> leftmost() const {
    std::set<std::uint64_t> blocks;
    for (const auto& level : levels_) blocks.insert(level.front().block);
    return blocks;
  }

 private:
  using Entries = TestImage::Entries;

  struct TestNode {
    std::uint64_t begin;  // what the parent says; its first key may be greater
    std::uint64_t block;
    Entries entries;
  };

  std::size_t between(std::size_t least, std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(least, most)(*random_);
  }

  // The nodes of one level, given what they should hold and what they were before.
  std::vector<TestNode> rewrite(std::size_t level, const std::vector<TestNode>& before,
                                const Entries& entries) {
    std::vector<TestNode> after;
    Entries changed;
    auto begin = entries.begin();
    for (auto node = before.begin(); node != before.end(); ++node) {
      const auto next = std::next(node);
      const auto end = next == before.end()
                           ? entries.end()
                           : std::find_if(begin, entries.end(), [&](const auto& entry) {
                               return entry.first >= next->begin;
                             });
      const Entries part(begin, end);
      begin = end;
      if (part == node->entries && part.size() >= fanout_.least &&
          (changed.empty() || changed.size() >= fanout_.least)) {
        write_pieces(level, changed, after);
        changed.clear();
        after.push_back(*node);
      } else {
        changed.insert(changed.end(), part.begin(), part.end());
      }
    }
    changed.insert(changed.end(), begin, entries.end());
    if (!changed.empty() && changed.size() < fanout_.least && !after.empty()) {
      changed.insert(changed.begin(), after.back().entries.begin(), after.back().entries.end());
      after.pop_back();
    }
    write_pieces(level, changed, after);
    if (after.empty()) after.push_back({0, image_->add_leaf({}), {}});
    return after;
  }

  void write_pieces(std::size_t level, const Entries& entries, std::vector<TestNode>& out) {
    if (entries.empty()) return;
    const std::size_t fewest = (entries.size() + fanout_.most - 1) / fanout_.most;
    const std::size_t pieces = between(fewest, std::max(fewest, entries.size() / fanout_.least));
    std::size_t begin = 0;
    for (std::size_t left = pieces; left > 0; --left) {
      const std::size_t rest = entries.size() - begin;
      const std::size_t others = left - 1;
      const std::size_t least =
          std::max(std::min(fanout_.least, rest), rest - std::min(rest, others * fanout_.most));
      const std::size_t most =
          std::min(fanout_.most, rest - std::min(rest, others * fanout_.least));
      const std::size_t size = others == 0 ? rest : between(least, std::max(least, most));
      const Entries piece(entries.begin() + static_cast<std::ptrdiff_t>(begin),
                          entries.begin() + static_cast<std::ptrdiff_t>(begin + size));
      // After removals, a parent's key may be lower than its child's first, but not as low as the
      // last of the child before.
      const std::uint64_t lowest = out.empty() ? 0 : out.back().entries.back().first + 1;
      const std::uint64_t bound =
          level > 0 || between(0, 1) == 0
              ? piece.front().first
              : std::max(lowest,
                         piece.front().first - std::min<std::uint64_t>(piece.front().first, 2));
      out.push_back(
          {bound, level == 0 ? image_->add_leaf(piece) : image_->add_inner(piece), piece});
      begin += size;
    }
  }

  TestImage* image_;
  std::mt19937_64* random_;
  Fanout fanout_;
  std::vector<std::vector<TestNode>> levels_;
};

// What a walk over devices of these mappings must give.
inline std::vector<DeltaRange> expected_delta(const Mappings& first, const Mappings& second) {
  std::map<std::uint64_t, Change> changes;
  for (const auto& [block, value] : first) {
    const auto other = second.find(block);
    if (other == second.end()) {
      changes[block] = Change::kRemoved;
    } else if (other->second >> kMappingTimeBits != value >> kMappingTimeBits) {
      changes[block] = Change::kDifferent;
    }
  }
  for (const auto& [block, value] : second) {
    if (!first.contains(block)) changes[block] = Change::kAdded;
  }
  std::vector<DeltaRange> ranges;
  for (const auto& [block, change] : changes) {
    if (!ranges.empty() && ranges.back().end.count == block && ranges.back().change == change) {
      ++ranges.back().end.count;
    } else {
      ranges.push_back({{block}, {block + 1}, change});
    }
  }
  return ranges;
}

// Some writes and discards of runs of blocks, as a file system makes them; every written block gets
// a new data block.
inline void change_randomly(Mappings& mappings, std::uint64_t device_blocks,
                            std::uint64_t& next_data_block, std::uint32_t time,
                            std::mt19937_64& random) {
  const auto up_to = [&](std::uint64_t most) {
    return std::uniform_int_distribution<std::uint64_t>(0, most)(random);
  };
  for (std::uint64_t runs = up_to(6); runs > 0; --runs) {
    const std::uint64_t begin = up_to(device_blocks - 1);
    const std::uint64_t end =
        std::min(device_blocks, begin + 1 + up_to(up_to(3) == 0 ? device_blocks / 4 : 5));
    const bool discard = up_to(3) == 0;
    for (std::uint64_t block = begin; block < end; ++block) {
      if (discard) {
        mappings.erase(block);
      } else {
        mappings[block] = mapping(next_data_block++, time);
      }
    }
  }
}

}  // namespace convoy::thinmeta
