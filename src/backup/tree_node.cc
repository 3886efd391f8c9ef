#include "backup/tree_node.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/error.h"

namespace convoy {
namespace {

struct NodeHeader {
  std::uint8_t level;
  std::uint8_t pack_count;
  std::uint8_t entry_count;
  std::uint8_t reserved;
};
static_assert(sizeof(NodeHeader) == 4);

struct NodePack {
  std::array<std::uint8_t, 16> backup;
  Le32 number;
};
static_assert(sizeof(NodePack) == 20);

struct NodeEntry {
  std::uint8_t place;
  std::uint8_t pack;
  Le32 slot;
  Digest digest;
};
static_assert(sizeof(NodeEntry) == 38);

static_assert(kTreeFanout <= UINT8_MAX, "places and counts of a node are bytes");
static_assert(kMaxNodeSize ==
              sizeof(NodeHeader) + kTreeFanout * (sizeof(NodePack) + sizeof(NodeEntry)));

PackKind kind_under(std::uint32_t level) {
  return level == 0 ? PackKind::kData : PackKind::kTree;
}

template <typename Struct>
void append(std::vector<std::byte>& out, const Struct& value) {
  const auto bytes = bytes_of(value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <typename Struct>
Struct take(std::span<const std::byte>& bytes) {
  Struct value;
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes = bytes.subspan(sizeof value);
  return value;
}

// The packs of a node in the order in which its entries first name them.
std::vector<PackName> packs_of(const TreeNode& node) {
  std::vector<PackName> packs;
  for (const auto& entry : node.entries) {
    if (entry && std::ranges::find(packs, entry->pack) == packs.end()) packs.push_back(entry->pack);
  }
  return packs;
}

[[noreturn]] void refuse(const char* why) {
  throw Error(ErrorKind::kCorrupt, "it is no tree node: {}", why);
}

std::vector<PackName> take_packs(std::span<const std::byte>& bytes, std::size_t count,
                                 PackKind kind) {
  std::vector<PackName> packs;
  packs.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto pack = take<NodePack>(bytes);
    packs.push_back({.kind = kind, .backup = Uuid(pack.backup), .number = pack.number});
  }
  return packs;
}

}  // namespace

bool TreeNode::empty() const {
  return std::ranges::none_of(entries, [](const auto& entry) { return entry.has_value(); });
}

std::vector<std::byte> encode_node(const TreeNode& node, std::uint32_t level) {
  const std::vector<PackName> packs = packs_of(node);
  const auto entry_count =
      std::ranges::count_if(node.entries, [](const auto& entry) { return entry.has_value(); });

  std::vector<std::byte> bytes;
  bytes.reserve(kMaxNodeSize);
  append(bytes, NodeHeader{.level = static_cast<std::uint8_t>(level),
                           .pack_count = static_cast<std::uint8_t>(packs.size()),
                           .entry_count = static_cast<std::uint8_t>(entry_count),
                           .reserved = 0});
  for (const PackName& pack : packs) {
    append(bytes, NodePack{.backup = pack.backup.bytes(), .number = pack.number});
  }
  for (std::size_t place = 0; place < kTreeFanout; ++place) {
    const auto& entry = node.entries[place];
    if (!entry) continue;
    const auto pack = std::ranges::find(packs, entry->pack) - packs.begin();
    append(bytes, NodeEntry{.place = static_cast<std::uint8_t>(place),
                            .pack = static_cast<std::uint8_t>(pack),
                            .slot = entry->slot,
                            .digest = entry->digest});
  }
  return bytes;
}

TreeNode decode_node(std::span<const std::byte> bytes, std::uint32_t level) {
  if (bytes.size() < sizeof(NodeHeader)) refuse("it is too short");
  const auto header = take<NodeHeader>(bytes);
  if (header.level != level) refuse("it is of another level");
  if (header.reserved != 0) refuse("its reserved byte is not zero");
  if (header.entry_count == 0 || header.entry_count > kTreeFanout) refuse("its number of entries");
  if (header.pack_count == 0 || header.pack_count > header.entry_count)
    refuse("its number of packs");
  if (bytes.size() !=
      header.pack_count * sizeof(NodePack) + header.entry_count * sizeof(NodeEntry)) {
    refuse("its length does not agree with its counts");
  }
  const std::vector<PackName> packs = take_packs(bytes, header.pack_count, kind_under(level));

  TreeNode node;
  std::size_t next_place = 0;
  for (std::size_t i = 0; i < header.entry_count; ++i) {
    const auto entry = take<NodeEntry>(bytes);
    if (entry.place < next_place || entry.place >= kTreeFanout)
      refuse("its entries are out of order");
    if (entry.pack >= packs.size()) refuse("an entry names a pack that it does not list");
    if (entry.slot >= kMaxPackSlots) refuse("an entry names a slot that no pack has");
    node.entries[entry.place] = {packs[entry.pack], entry.slot, entry.digest};
    next_place = entry.place + std::size_t{1};
  }
  return node;
}

std::uint32_t TreeShape::height() const {
  std::uint32_t level = 0;
  while (chunks_under(level) < chunk_count()) ++level;
  return level + 1;
}

ByteRange TreeShape::bytes_of(std::uint64_t first, std::uint64_t end) const {
  return {std::min(first * chunk_size_, size_), std::min(end * chunk_size_, size_)};
}

}  // namespace convoy
