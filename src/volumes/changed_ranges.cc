#include "volumes/changed_ranges.h"

#include <algorithm>

namespace convoy {

void ChangedRanges::add(const ChangedRange& range) {
  if (ranges_.size() == limit_) join_closest();
  ranges_.push_back(range);
}

// Leaves half of them, so that the next time is far.
void ChangedRanges::join_closest() {
  const auto gap_before = [&](std::size_t i) {
    return ranges_[i].range.begin - ranges_[i - 1].range.end;
  };
  std::vector<std::uint64_t> gaps;
  for (std::size_t i = 1; i < ranges_.size(); ++i) gaps.push_back(gap_before(i));
  const std::size_t joints = ranges_.size() - ranges_.size() / 2;
  const auto widest = gaps.begin() + static_cast<std::ptrdiff_t>(joints) - 1;
  std::ranges::nth_element(gaps, widest);
  auto as_wide_left = std::count(gaps.begin(), widest + 1, *widest);

  std::vector<ChangedRange> joined = {ranges_[0]};
  for (std::size_t i = 1; i < ranges_.size(); ++i) {
    const std::uint64_t gap = gap_before(i);
    if (gap < *widest || (gap == *widest && as_wide_left-- > 0))
      joined.back() = {{joined.back().range.begin, ranges_[i].range.end}, Change::kDifferent};
    else
      joined.push_back(ranges_[i]);
  }
  ranges_ = std::move(joined);
}

}  // namespace convoy
