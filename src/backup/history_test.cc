// Random histories of one volume: writes, discards, resizes, backups, some of them interrupted,
// deletions and collections of garbage. After each step every backup in the store restores to what
// the volume was; after a deletion no pack is there that nothing needs, and after a collection none
// of which too little is needed.
#include <atomic>

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
  kInterrupt,
  kDelete,
  kCollect
};

// Found by rapidcheck, under this name.
// NOLINTNEXTLINE(readability-identifier-naming)
[[maybe_unused]] void showValue(Step step, std::ostream& out) {
  constexpr std::array<const char*, 10> kNames = {
      "write",       "write same",       "zero",      "resize", "back up",
      "back up all", "back up on older", "interrupt", "delete", "collect"};
  out << kNames.at(static_cast<std::size_t>(step));
}

// Of the test that is running.
int failures() {
  return testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
}

class HistoryTest : public BackupTest {
 protected:
  static constexpr std::uint64_t kMaxSize = 3 * kMiB / 2;  // three leaves of chunks of 4 KiB
  // The number of what to write: few, so that equal chunks and returns to what was there before are
  // frequent.
  static constexpr unsigned kSeeds = 4;

  void begin_anew() {
    chunk_size_ = kMinChunkSize;
    objects_.set_objects({});
    store_ = Store::open_or_create(objects_, std::nullopt,
                                   {.garbage_grace = std::chrono::milliseconds::zero()});
    expected_.clear();
    chain_.clear();
    changes_.clear();
    device_.resize(0);
    device_.resize(*size_up_to(kMaxSize));
  }

  static rc::Gen<std::uint64_t> size_up_to(std::uint64_t max) {
    return rc::gen::map(rc::gen::inRange<std::uint64_t>(1, max / 512 + 1),
                        [](std::uint64_t sectors) { return sectors * 512; });
  }

  ByteRange some_range() const {
    const std::uint64_t begin = *rc::gen::inRange<std::uint64_t>(0, device_.size() / 512) * 512;
    const std::uint64_t most =
        std::min<std::uint64_t>(device_.size() - begin, *size_up_to(kMaxSize / 2));
    return {begin, begin + most};
  }

  void note_change(const ByteRange& range, SourceKind kind) { changes_.push_back({range, kind}); }

  void take_step(Step step) {
    switch (step) {
      case Step::kWrite: {
        const ByteRange range = some_range();
        device_.write(range.begin, noise(*rc::gen::arbitrary<unsigned>(), range.length()));
        return note_change(range, SourceKind::kRead);
      }
      case Step::kWriteSame: {
        const ByteRange range = some_range();
        const Bytes chunk = noise(*rc::gen::inRange(0U, kSeeds), 4096);
        for (std::uint64_t at = range.begin / 4096 * 4096; at + 4096 <= range.end; at += 4096) {
          device_.write(at, chunk);
          note_change({at, at + 4096}, SourceKind::kRead);
        }
        return;
      }
      case Step::kZero: {
        const ByteRange range = some_range();
        device_.zero(range.begin, range.length());
        return note_change(range, SourceKind::kZero);
      }
      case Step::kResize:
        device_.resize(*size_up_to(kMaxSize));
        return note_change({device_.size(), kMaxSize}, SourceKind::kZero);  // if it grows again
      case Step::kBackUp:
        return back_up_on(chain_.empty() ? std::nullopt : std::optional(chain_.back()), changes());
      case Step::kBackUpAll:
        return back_up_on(std::nullopt, {{{0, device_.size()}, SourceKind::kRead}});
      case Step::kBackUpOnOlder:
        if (chain_.empty()) return;
        return back_up_on(*rc::gen::elementOf(chain_), {{{0, device_.size()}, SourceKind::kRead}});
      case Step::kInterrupt:
        return interrupt();
      case Step::kDelete:
        return delete_one();
      case Step::kCollect:
        return collect();
    }
  }

  // What changed since the last backup: per sector what was done to it last, which is what thin
  // metadata tells.
  std::vector<SourceRange> changes() const {
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

  void back_up_on(const std::optional<BackupRecord>& parent, std::vector<SourceRange> ranges) {
    if (!parent) ranges = {{{0, device_.size()}, SourceKind::kRead}};
    chain_.push_back(back_up(device_, parent, std::move(ranges)));
    changes_.clear();
  }

  void delete_one() {
    if (chain_.empty()) return;
    const auto at = *rc::gen::inRange<std::size_t>(0, chain_.size());
    delete_and_forget(chain_[at].info.uuid);
    chain_.erase(chain_.begin() + static_cast<std::ptrdiff_t>(at));
    // Without the last one, the next backup can't be told what changed since.
    if (at == chain_.size()) note_change({0, kMaxSize}, SourceKind::kRead);
    objects_.advance(std::chrono::hours(1));
    collect_garbage(store_, lineage_, CollectionMode::kWhatNobodyRefersTo, {}, {});
    check_nothing_is_left_over();
  }

  // A backup that ends at any of its calls to the store, in the middle of its work or at its end.
  void interrupt() {
    const int last = *rc::gen::inRange(0, 20);
    std::atomic<int> calls = 0;
    objects_.hook = [&](MemoryStore::Call, const std::string&) {
      if (calls++ >= last) throw Error(ErrorKind::kIo, "power cut");
    };
    const auto parent = chain_.empty() ? std::nullopt : std::optional(chain_.back());
    const Bytes content = device_.content();
    const auto known = backups_in_chain();
    error_of([&] { back_up(device_, parent, {{{0, device_.size()}, SourceKind::kRead}}); });
    objects_.hook = nullptr;
    // It may have been complete already. Nobody is told of it, but it counts.
    for (const Uuid& backup : backups_of(store_, lineage_)) {
      if (known.contains(backup)) continue;
      expected_[backup] = content;
      delete_and_forget(backup);
    }
  }

  std::set<Uuid> backups_in_chain() const {
    std::set<Uuid> backups;
    for (const BackupRecord& record : chain_) backups.insert(record.info.uuid);
    return backups;
  }

  void collect() {
    // What is left of a backup counts as being written until its lease is dead.
    collect_garbage(store_, lineage_, CollectionMode::kHalfDead, {}, {});
    check_backups();
    objects_.advance(std::chrono::hours(1));
    const Collection collection =
        collect_garbage(store_, lineage_, CollectionMode::kHalfDead, {}, {});
    EXPECT_EQ(collection.not_rewritten, "");
    check_nothing_is_left_over();
    check_live_shares();
  }

  // At least 60 percent of the bytes in each pack are needed.
  void check_live_shares() {
    PackUses packs;
    std::map<PackName, std::set<std::uint32_t>> needed;
    for (const BackupRecord& record : chain_) {
      packs.insert(record.packs.begin(), record.packs.end());
      const ReferenceCount count(store_, record);
      for (const auto& [pack, slots] : count.slots())
        needed[pack].insert(slots.begin(), slots.end());
    }
    PackFooters footers(objects_, lineage_, packs);
    for (const auto& [pack, slots] : needed) {
      const PackFooters::Footer footer = footers.footer_of(pack);
      std::uint64_t live = 0, all = 0;
      for (std::uint32_t slot = 0; slot < footer->slots.size(); ++slot) {
        all += footer->slots[slot].length;
        if (slots.contains(slot)) live += footer->slots[slot].length;
      }
      EXPECT_GE(live * 100, all * 60) << to_string(pack);
    }
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
                                                    {1, Step::kInterrupt},
                                                    {3, Step::kDelete},
                                                    {2, Step::kCollect}});
  const bool holds = rc::check([&] {
    const int before = failures();
    begin_anew();
    // Half as long as rapidcheck would have it: there are 50 steps at most, and each one checks all
    // backups.
    for (const Step next : *rc::gen::scale(0.5, rc::gen::container<std::vector<Step>>(step))) {
      take_step(next);
      check_backups();
      RC_ASSERT(failures() == before);
    }
  });
  EXPECT_TRUE(holds);
}

}  // namespace
}  // namespace convoy
