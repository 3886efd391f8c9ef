#include "backup/chunk_writer.h"

#include <algorithm>
#include <utility>

#include "backup/device_io.h"
#include "base/bytes.h"

namespace convoy {
namespace {

// What is read at once. Large enough for a disk, small enough that a few for each thread are no
// memory to speak of.
constexpr std::uint64_t kPieceSize = kMiB;

// Pieces that are done wait for the ones before them: with so many for each thread, one slow read
// does not stop the others.
constexpr std::size_t kPiecesPerThread = 3;

}  // namespace

ChunkWriter::Tools::Tools(const Compression& compression)
    : buffer(kPieceSize), encoder(compression) {}

std::deque<ChunkWriter::Tools> ChunkWriter::make_tools(unsigned threads,
                                                       const Compression& compression) {
  std::deque<Tools> tools;
  while (tools.size() < threads) tools.emplace_back(compression);
  return tools;
}

ChunkWriter::ChunkWriter(Parts parts, KnownChunks known)
    : parts_(std::move(parts)),
      tools_(make_tools(worker_count(), parts_.compression)),
      frames_(kPieceSize),
      known_(std::move(known)),
      workers_(
          worker_count(), worker_count() * kPiecesPerThread,
          [this](Piece& piece, unsigned thread) { read_and_compress(piece, tools_[thread]); },
          [this](Piece& piece) { store(piece); }) {}

void ChunkWriter::update_leaves(std::span<LeafUpdate> leaves) {
  try {
    for (LeafUpdate& update : leaves) add_leaf(update);
    workers_.wait();
    parts_.before_piece(statistics());
  } catch (...) {
    workers_.stop();  // before the leaves end, into which its pieces are written
    throw;
  }
}

void ChunkWriter::add_leaf(LeafUpdate& update) {
  for (const ChunkRange& range : update.ranges) {
    const std::uint64_t begin = std::max(range.first, update.first);
    const std::uint64_t end = std::min(range.end, update.first + kTreeFanout);
    const std::span entries =
        std::span(update.leaf.entries).subspan(begin - update.first, end - begin);
    if (range.kind == SourceKind::kZero) {
      std::ranges::fill(entries, std::nullopt);
    } else {
      add_pieces(begin, end, entries);
    }
  }
}

void ChunkWriter::add_pieces(std::uint64_t first, std::uint64_t end,
                             std::span<std::optional<Reference>> entries) {
  const std::uint64_t most = kPieceSize / parts_.shape.chunk_size();
  for (std::uint64_t begin = first; begin < end; begin += most) {
    const std::uint64_t count = std::min(most, end - begin);
    parts_.before_piece(statistics());
    workers_.add({.range = parts_.shape.bytes_of(begin, begin + count),
                  .entries = entries.subspan(begin - first, count),
                  .chunks = {},
                  .frames = frames_.take()});
  }
}

void ChunkWriter::read_and_compress(Piece& piece, Tools& tools) {
  read_device(parts_.device_fd, tools.buffer, piece.range.begin, piece.range.length());
  std::span<const std::byte> rest = std::as_const(tools.buffer).bytes().first(piece.range.length());
  for (const auto& old : piece.entries) {
    const std::size_t length = std::min<std::size_t>(rest.size(), parts_.shape.chunk_size());
    piece.chunks.push_back(examine(rest.first(length), old, tools, piece.frames));
    rest = rest.subspan(length);
  }
}

ChunkWriter::Piece::Chunk ChunkWriter::examine(std::span<const std::byte> plain,
                                               const std::optional<Reference>& old, Tools& tools,
                                               std::vector<std::byte>& frames) {
  if (all_zero(plain)) return {};
  const Digest digest = sha256(plain);
  if (old && old->digest == digest) return {.reference = old};
  if (const auto found = find_known(digest)) return {.reference = found};
  if (parts_.leftovers != nullptr) {
    if (const auto left = parts_.leftovers->find(digest)) return {.reference = left};
  }
  return {.reference = Reference{.pack = {}, .slot = 0, .digest = digest},
          .frame_length = tools.encoder.append(plain, frames)};
}

// In the order of the volume, so that neighbours there are neighbours in a pack.
void ChunkWriter::store(Piece& piece) {
  BackupStatistics done{.bytes_read = piece.range.length()};
  std::span<const std::byte> frames = piece.frames;
  for (std::size_t i = 0; i < piece.chunks.size(); ++i) {
    const auto& [reference, frame_length] = piece.chunks[i];
    auto& entry = piece.entries[i];
    entry = reference;
    if (!reference) continue;
    const auto frame = frames.first(frame_length);
    frames = frames.subspan(frame_length);
    // An equal chunk may have been stored since this one was looked for.
    if (!frame.empty()) entry = find_known(reference->digest);
    if (entry) {
      ++done.chunks_reused;
      continue;
    }
    entry = parts_.packs.add(frame, reference->digest);
    ++done.chunks_stored;
    const std::lock_guard lock(mutex_);
    known_.remember(*entry);
  }
  frames_.put_back(std::move(piece.frames));
  const std::lock_guard lock(mutex_);
  statistics_.bytes_read += done.bytes_read;
  statistics_.chunks_stored += done.chunks_stored;
  statistics_.chunks_reused += done.chunks_reused;
}

BackupStatistics ChunkWriter::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

std::optional<Reference> ChunkWriter::find_known(const Digest& digest) const {
  const std::lock_guard lock(mutex_);
  const Reference* const found = known_.find(digest);
  return found != nullptr ? std::optional(*found) : std::nullopt;
}

}  // namespace convoy
