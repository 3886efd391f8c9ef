#include "backup/pack_writer.h"

#include "base/limits.h"

namespace convoy {

PackWriter::PackWriter(ObjectStore& objects, const Uuid& lineage, const PackName& first,
                       unsigned puts_at_once)
    : lineage_(lineage),
      current_(first),
      spare_(kPackTargetSize + 2 * kMaxChunkSize),
      frames_(spare_.take()),
      puts_(
          puts_at_once, puts_at_once,
          [&objects](Pack& pack, unsigned) { objects.put(pack.key, pack.bytes); },
          [this](Pack& pack) { spare_.put_back(std::move(pack.bytes)); }) {}

Reference PackWriter::add(std::span<const std::byte> frame, const Digest& digest) {
  const Reference reference{
      .pack = current_, .slot = static_cast<std::uint32_t>(slots_.size()), .digest = digest};
  slots_.push_back({.offset = static_cast<std::uint32_t>(frames_.size()),
                    .length = static_cast<std::uint32_t>(frame.size()),
                    .digest = digest});
  frames_.insert(frames_.end(), frame.begin(), frame.end());
  // The footer counts too: of many tiny frames it is as large as they are.
  if (frames_.size() + footer_bound(slots_.size()) >= kPackTargetSize) put();
  return reference;
}

Reference PackWriter::add_plain(std::span<const std::byte> plain, const Digest& digest) {
  frame_.clear();
  encoder_.append(plain, frame_);
  return add(frame_, digest);
}

void PackWriter::finish() {
  if (!slots_.empty()) put();
  puts_.wait();
}

std::vector<PackName> PackWriter::stop() {
  puts_.stop();
  std::vector<PackName> names;
  names.reserve(written_.size());
  for (const auto& [name, size] : written_) names.push_back(name);
  return names;
}

void PackWriter::put() {
  append_footer(slots_, encoder_, frames_);
  written_.emplace_back(current_, frames_.size());
  puts_.add({.key = pack_key(lineage_, current_), .bytes = std::move(frames_)});
  ++current_.number;
  frames_ = spare_.take();
  slots_.clear();
}

}  // namespace convoy
