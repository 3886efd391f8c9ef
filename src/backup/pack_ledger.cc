#include "backup/pack_ledger.h"

#include "base/error.h"

namespace convoy {

void PackLedger::retain(const PackName& pack) {
  ++uses_[pack].references;
}

void PackLedger::release(const PackName& pack) {
  const auto use = uses_.find(pack);
  if (use == uses_.end()) {
    throw Error(ErrorKind::kCorrupt,
                "the parent backup's JSON lists fewer references to the pack {} than its tree has",
                to_string(pack));
  }
  if (--use->second.references == 0) uses_.erase(use);
}

void PackLedger::set_sizes_of(const PackUses& others) {
  for (auto& [pack, use] : uses_) {
    if (const auto other = others.find(pack); other != others.end()) use.size = other->second.size;
  }
}

void PackLedger::set_size(const PackName& pack, std::uint64_t size) {
  const auto use = uses_.find(pack);
  if (use == uses_.end()) {
    throw Error(ErrorKind::kInternal, "the new pack {} has no references", to_string(pack));
  }
  use->second.size = size;
}

}  // namespace convoy
