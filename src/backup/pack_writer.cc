#include "backup/pack_writer.h"

#include "base/limits.h"

namespace convoy {

PackWriter::PackWriter(ObjectStore& objects, const Uuid& lineage, const PackName& first)
    : objects_(objects), lineage_(lineage), first_(first), current_(first) {}

Reference PackWriter::add(std::span<const std::byte> plain, const Digest& digest) {
  const Reference reference{
      .pack = current_, .slot = static_cast<std::uint32_t>(slots_.size()), .digest = digest};
  const auto offset = static_cast<std::uint32_t>(frames_.size());
  slots_.push_back({.offset = offset, .length = encoder_.append(plain, frames_), .digest = digest});
  // The footer counts too: of many tiny frames it is as large as they are.
  if (frames_.size() + footer_bound(slots_.size()) >= kPackTargetSize) put();
  return reference;
}

void PackWriter::finish() {
  if (!slots_.empty()) put();
}

std::vector<PackName> PackWriter::names() const {
  std::vector<PackName> names;
  for (PackName name = first_; name.number <= current_.number; ++name.number) names.push_back(name);
  return names;
}

void PackWriter::put() {
  append_footer(slots_, encoder_, frames_);
  objects_.put(pack_key(lineage_, current_), frames_);
  written_.emplace_back(current_, frames_.size());
  ++current_.number;
  frames_.clear();
  slots_.clear();
}

}  // namespace convoy
