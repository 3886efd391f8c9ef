// Random histories of one volume: writes, discards, resizes, backups and deletions. After each step
// every backup in the store restores to what the volume was, and after a deletion no pack is there
// that nothing needs.
#include <rapidcheck.h>

#include "backup/backup_testing.h"

namespace convoy {
namespace {

enum class Step {
  kWrite,
  kWriteSame,
  kZero,
  kResize,
  kBackUp,
  kBackUpAll,
  kBackUpOnOlder,
  kDelete
};

[[maybe_unused]] void showValue(Step step, std::ostream& out) {  // found by rapidcheck
  constexpr std::array<const char*, 8> kNames = {
      "write",       "write same",       "zero",  "resize", "back up",
      "back up all", "back up on older", "delete"};
  out << kNames.at(static_cast<std::size_t>(step));
}

// Of the test that is running.
int Failures() {
  return testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
}

class HistoryTest : public BackupTest {
 protected:
  static constexpr std::uint64_t kMaxSize = 3 * kMiB / 2;  // three leaves of chunks of 4 KiB
  // The number of what to write: few, so that equal chunks and returns to what was there before are
  // frequent.
  static constexpr unsigned kSeeds = 4;

  void Begin() {
    chunk_size_ = kMinChunkSize;
    objects_.set_objects({});
    store_ = Store::open_or_create(objects_, std::nullopt);
    expected_.clear();
    chain_.clear();
    changes_.clear();
    device_.Resize(0);
    device_.Resize(*SizeUpTo(kMaxSize));
  }

  static rc::Gen<std::uint64_t> SizeUpTo(std::uint64_t max) {
    return rc::gen::map(rc::gen::inRange<std::uint64_t>(1, max / 512 + 1),
                        [](std::uint64_t sectors) { return sectors * 512; });
  }

  ByteRange SomeRange() const {
    const std::uint64_t begin = *rc::gen::inRange<std::uint64_t>(0, device_.size() / 512) * 512;
    const std::uint64_t most =
        std::min<std::uint64_t>(device_.size() - begin, *SizeUpTo(kMaxSize / 2));
    return {begin, begin + most};
  }

  void Change(const ByteRange& range, SourceKind kind) { changes_.push_back({range, kind}); }

  void Do(Step step) {
    switch (step) {
      case Step::kWrite: {
        const ByteRange range = SomeRange();
        device_.Write(range.begin, noise(*rc::gen::arbitrary<unsigned>(), range.length()));
        return Change(range, SourceKind::kRead);
      }
      case Step::kWriteSame: {
        const ByteRange range = SomeRange();
        const Bytes chunk = noise(*rc::gen::inRange(0U, kSeeds), 4096);
        for (std::uint64_t at = range.begin / 4096 * 4096; at + 4096 <= range.end; at += 4096) {
          device_.Write(at, chunk);
          Change({at, at + 4096}, SourceKind::kRead);
        }
        return;
      }
      case Step::kZero: {
        const ByteRange range = SomeRange();
        device_.Zero(range.begin, range.length());
        return Change(range, SourceKind::kZero);
      }
      case Step::kResize:
        device_.Resize(*SizeUpTo(kMaxSize));
        return Change({device_.size(), kMaxSize}, SourceKind::kZero);  // if it grows again
      case Step::kBackUp:
        return BackUpOn(chain_.empty() ? std::nullopt : std::optional(chain_.back()), Changes());
      case Step::kBackUpAll:
        return BackUpOn(std::nullopt, {{{0, device_.size()}, SourceKind::kRead}});
      case Step::kBackUpOnOlder:
        if (chain_.empty()) return;
        return BackUpOn(*rc::gen::elementOf(chain_), {{{0, device_.size()}, SourceKind::kRead}});
      case Step::kDelete:
        return DeleteOne();
    }
  }

  // What changed since the last backup: per sector what was done to it last, which is what thin
  // metadata tells.
  std::vector<SourceRange> Changes() const {
    std::vector<std::optional<SourceKind>> sectors(kMaxSize / 512);
    for (const auto& [range, kind] : changes_) {
      for (std::uint64_t i = range.begin / 512; i < range.end / 512; ++i) sectors[i] = kind;
    }
    std::vector<SourceRange> ranges;
    for (std::uint64_t i = 0; i < device_.size() / 512; ++i) {
      if (!sectors[i]) continue;
      const ByteRange sector{i * 512, (i + 1) * 512};
      if (!ranges.empty() && ranges.back().kind == *sectors[i] &&
          ranges.back().bytes.end == sector.begin) {
        ranges.back().bytes.end = sector.end;
      } else {
        ranges.push_back({sector, *sectors[i]});
      }
    }
    return ranges;
  }

  void BackUpOn(const std::optional<BackupRecord>& parent, std::vector<SourceRange> ranges) {
    if (!parent) ranges = {{{0, device_.size()}, SourceKind::kRead}};
    chain_.push_back(BackUp(device_, parent, std::move(ranges)));
    changes_.clear();
  }

  void DeleteOne() {
    if (chain_.empty()) return;
    const auto at = *rc::gen::inRange<std::size_t>(0, chain_.size());
    Delete(chain_[at].info.uuid);
    chain_.erase(chain_.begin() + static_cast<std::ptrdiff_t>(at));
    // Without the last one, the next backup can't be told what changed since.
    if (at == chain_.size()) Change({0, kMaxSize}, SourceKind::kRead);
    CheckNothingIsLeftOver();
  }

  TestDevice device_{512};
  std::vector<BackupRecord> chain_;   // those in the store, in the order in which they were made
  std::vector<SourceRange> changes_;  // since the last backup, in the order in which they were made
};

TEST_F(HistoryTest, EveryBackupRestoresWhatItsVolumeWas) {
  const auto step = rc::gen::weightedElement<Step>({{4, Step::kWrite},
                                                    {2, Step::kWriteSame},
                                                    {3, Step::kZero},
                                                    {1, Step::kResize},
                                                    {5, Step::kBackUp},
                                                    {1, Step::kBackUpAll},
                                                    {1, Step::kBackUpOnOlder},
                                                    {3, Step::kDelete}});
  const bool holds = rc::check([&] {
    const int failures = Failures();
    Begin();
    // Half as long as rapidcheck would have it: there are 50 steps at most, and each one checks all
    // backups.
    for (const Step next : *rc::gen::scale(0.5, rc::gen::container<std::vector<Step>>(step))) {
      Do(next);
      CheckBackups();
      RC_ASSERT(Failures() == failures);
    }
  });
  EXPECT_TRUE(holds);
}

}  // namespace
}  // namespace convoy
