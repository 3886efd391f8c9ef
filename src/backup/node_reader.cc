#include "backup/node_reader.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace convoy {
namespace {

// Requests under way at once. They wait, and need no CPU to do so.
constexpr unsigned kReadsAtOnce = 16;

// Nodes farther from each other in a pack are never read by one request: 64 of 5 KiB are more than
// the gap that PackReader reads across.
constexpr std::uint32_t kNeighbours = 64;

}  // namespace

void NodeReader::start_threads() {
  while (packs_.size() < kReadsAtOnce) packs_.emplace_back(objects_, record_, footers_);
  workers_.emplace(
      kReadsAtOnce, std::size_t{2} * kReadsAtOnce,
      [this](Piece& piece, unsigned thread) { read_piece(piece, packs_[thread]); },
      [this](const Piece& piece) { finish(piece); });
}

void NodeReader::read(std::uint32_t level, std::span<const PackReader::Item> items,
                      const Visit& visit, const DamageSink& damaged) {
  level_ = level;
  visit_ = &visit;
  damaged_ = &damaged;
  std::vector<Piece> pieces = divide(items);
  if (pieces.size() == 1) {
    read_piece(pieces[0], packs_[0]);
    finish(pieces[0]);
  } else if (!pieces.empty()) {
    if (!workers_) start_threads();
    for (Piece& piece : pieces) workers_->add(std::move(piece));
    workers_->wait();
  }
  if (const auto error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
}

std::vector<NodeReader::Piece> NodeReader::divide(std::span<const PackReader::Item> items) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) {
    return std::pair(items[i].reference.pack, items[i].reference.slot);
  });
  std::vector<Piece> pieces;
  for (const std::size_t i : order) {
    const Reference& reference = items[i].reference;
    const Reference* const last = pieces.empty() ? nullptr : &pieces.back().items.back().reference;
    if (last == nullptr || last->pack != reference.pack ||
        reference.slot - last->slot > kNeighbours)
      pieces.emplace_back();
    pieces.back().items.push_back(items[i]);
    pieces.back().indices.push_back(i);
  }
  return pieces;
}

// What it throws is kept, so that the threads stay fit for the next call.
void NodeReader::read_piece(Piece& piece, PackReader& packs) const {
  try {
    read_despite_damage(
        packs, piece.items, kMaxNodeSize,
        [&](std::size_t index, std::span<const std::byte> bytes) {
          piece.nodes.emplace_back(piece.indices[index], decode_node(bytes, level_));
        },
        *damaged_);
  } catch (...) {
    piece.error = std::current_exception();
  }
}

void NodeReader::finish(const Piece& piece) {
  if (error_) return;
  error_ = piece.error;
  if (error_) return;
  try {
    for (const auto& [index, node] : piece.nodes) (*visit_)(index, node);
  } catch (...) {
    error_ = std::current_exception();
  }
}

}  // namespace convoy
