#include "backup/node_reader.h"

#include <map>
#include <utility>

#include "base/error.h"

namespace convoy {
namespace {

// Requests under way at once. They wait, and need no CPU to do so.
constexpr unsigned kReadsAtOnce = 8;

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
  std::map<PackName, Piece> pieces;
  for (std::size_t i = 0; i < items.size(); ++i) {
    Piece& piece = pieces[items[i].reference.pack];
    piece.items.push_back(items[i]);
    piece.indices.push_back(i);
  }
  if (pieces.size() <= 1) {
    for (auto& [pack, piece] : pieces) {
      read_piece(piece, packs_[0]);
      finish(piece);
    }
  } else {
    if (!workers_) start_threads();
    for (auto& [pack, piece] : pieces) workers_->add(std::move(piece));
    workers_->wait();
  }
  if (const auto error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
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
