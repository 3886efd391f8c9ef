// Deltas of snapshots while the kernel rewrites the pool's trees: a writer that never rests,
// snapshots that come and go.
//
//   delta_hammer held|live METADATA-DEVICE DATA-DEVICE DELTAS SEED
//
// What each snapshot maps is known from what was written before it, so every delta has one right
// answer. With "held" each is read under a metadata snapshot, as the product does, and the first
// wrong one or error ends it with status 1. With "live" the metadata are read as they are at that
// moment, which must go wrong: it ends with 0 at the first wrong answer or error.
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/error.h"
#include "devmapper/dm_task.h"
#include "devmapper/kernel_thin_pool.h"
#include "sys/aligned_buffer.h"
#include "sys/file.h"
#include "thinmeta/metadata.h"

namespace convoy {
namespace {

constexpr Sectors kBlockSize{128};
constexpr const char* kPoolName = "hammered";
constexpr const char* kVolumeName = "anvil";
constexpr std::uint32_t kVolume = 1;
constexpr std::uint64_t kBlocks = 3000;  // three levels of nodes
constexpr std::size_t kSnapshots = 6;

// Block of the volume -> a number that changes whenever the kernel has to map it anew: after a
// discard, and at the first write after a snapshot.
using Content = std::map<std::uint64_t, std::uint64_t>;

using BlockDelta = std::map<std::uint64_t, Change>;

BlockDelta expected_delta(const Content& first, const Content& second) {
  BlockDelta delta;
  for (const auto& [block, number] : first) {
    const auto other = second.find(block);
    if (other == second.end()) {
      delta[block] = Change::kRemoved;
    } else if (other->second != number) {
      delta[block] = Change::kDifferent;
    }
  }
  for (const auto& [block, number] : second) {
    if (!first.contains(block)) delta[block] = Change::kAdded;
  }
  return delta;
}

BlockDelta found_delta(Metadata& metadata, std::uint32_t first, std::uint32_t second) {
  BlockDelta delta;
  metadata.delta(first, second, [&](const DeltaRange& range) {
    for (std::uint64_t block = range.begin.count; block < range.end.count; ++block)
      delta[block] = range.change;
  });
  return delta;
}

// The volume, its writer, and its snapshots.
class Anvil {
 public:
  Anvil(KernelThinPool& pool, std::uint64_t seed) : pool_(pool), random_(seed) {
    pool_.create_thin({kVolume});
    pool_.activate(kVolumeName, "01900000-0000-7000-8000-000000000000", {kVolume},
                   {kBlocks * kBlockSize.count}, Access::kReadWrite);
    device_ = open_file(std::string("/dev/mapper/") + kVolumeName, O_RDWR | O_DIRECT);
    for (std::uint64_t block = 0; block < kBlocks; block += 2) write(block);
    while (snapshots_.size() < kSnapshots) take_snapshot();
    writer_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        // A mutex is not fair: whoever asks for it again at once may keep it for minutes.
        while (lock_is_wanted_ && !stop.stop_requested()) std::this_thread::yield();
        strike();
      }
    });
  }
  Anvil(const Anvil&) = delete;
  Anvil& operator=(const Anvil&) = delete;
  ~Anvil() {
    writer_.request_stop();
    if (writer_.joinable()) writer_.join();
    device_.reset();
    pool_.deactivate(kVolumeName);
    pool_.delete_thin({kVolume});
    for (const auto& [id, content] : snapshots_) pool_.delete_thin({id});
  }

  // A new snapshot takes the place of the oldest.
  void renew_a_snapshot() {
    pool_.delete_thin({snapshots_.begin()->first});
    snapshots_.erase(snapshots_.begin());
    take_snapshot();
  }

  const std::map<std::uint32_t, Content>& snapshots() const { return snapshots_; }
  std::uint64_t strikes() const { return strikes_; }

  // Enough of them for so many commits that the kernel has gone once around a metadata device of 2
  // MiB, and uses again what the trees have left.
  void wait_for_strikes() const {
    // Without a timer: on some hosts, User Mode Linux loses its own under such a load, and its time
    // stands still.
    for (const std::uint64_t wanted = strikes_ + 300; strikes_ < wanted;) std::this_thread::yield();
  }

 private:
  std::uint64_t pick(std::uint64_t least, std::uint64_t most) {
    return std::uniform_int_distribution<std::uint64_t>(least, most)(random_);
  }

  void take_snapshot() {
    // The writer waits here, and so its next write is known to come after.
    lock_is_wanted_ = true;
    const std::lock_guard lock(lock_);
    lock_is_wanted_ = false;
    const std::uint32_t id = ++last_id_;
    pool_.create_snapshot({id}, {kVolume}, kVolumeName);
    snapshots_[id] = content_;
    fresh_since_ = next_number_;
  }

  void strike() {
    const std::lock_guard lock(lock_);
    const std::uint64_t begin = pick(0, kBlocks - 1);
    if (pick(0, 9) == 0) {
      discard(begin, std::min(kBlocks, begin + pick(1, 100)));
    } else {
      write(begin);
    }
    // The kernel commits the metadata, and may then use again what the commit before had still in
    // use.
    if (pick(0, 3) == 0 && ::fdatasync(device_.get()) != 0) throw system_error(errno, "fdatasync");
    ++strikes_;
  }

  void write(std::uint64_t block) {
    write_all_at(device_.get(), page_.bytes(), block * kBlockSize.bytes());
    const auto known = content_.find(block);
    if (known == content_.end() || known->second < fresh_since_) content_[block] = next_number_++;
  }

  void discard(std::uint64_t begin, std::uint64_t end) {
    const std::uint64_t range[2] = {begin * kBlockSize.bytes(), (end - begin) * kBlockSize.bytes()};
    if (::ioctl(device_.get(), BLKDISCARD, range) != 0) throw system_error(errno, "BLKDISCARD");
    content_.erase(content_.lower_bound(begin), content_.lower_bound(end));
  }

  KernelThinPool& pool_;
  std::mutex lock_;  // what the writer uses as well
  std::atomic<bool> lock_is_wanted_ = false;
  std::mt19937_64 random_;
  UniqueFd device_;
  AlignedBuffer page_{kDirectAlignment};
  Content content_;
  std::uint64_t next_number_ = 1;
  std::uint64_t fresh_since_ = 0;  // lower numbers were mapped before the last snapshot
  std::map<std::uint32_t, Content> snapshots_;
  std::uint32_t last_id_ = kVolume;
  std::atomic<std::uint64_t> strikes_ = 0;
  std::jthread writer_;
};

// What a reader did wrong; an Error of the pool is none.
struct Wrong {
  std::string what;
};

Metadata open_metadata(KernelThinPool& pool, Root root) {
  try {
    return {BlockDevice::open(pool.metadata_device(), Access::kReadOnly), root};
  } catch (const Error& error) {
    throw Wrong{error.message()};
  }
}

// The number of differing blocks. Throws Wrong if the reader fails, or its answer is not the right
// one.
std::size_t check_a_delta(const Anvil& anvil, Metadata& metadata, std::mt19937_64& random) {
  auto first = anvil.snapshots().begin();
  auto second = first;
  std::advance(first, std::uniform_int_distribution<std::ptrdiff_t>(0, kSnapshots - 1)(random));
  std::advance(second, std::uniform_int_distribution<std::ptrdiff_t>(0, kSnapshots - 1)(random));
  BlockDelta found;
  try {
    found = found_delta(metadata, first->first, second->first);
  } catch (const Error& error) {
    throw Wrong{error.message()};
  }
  if (found != expected_delta(first->second, second->second))
    throw Wrong{
        fmt::format("the delta of devices {} and {} is wrong", first->first, second->first)};
  return found.size();
}

struct Tally {
  std::uint64_t deltas = 0;
  std::uint64_t differing = 0;
};

void hammer(KernelThinPool& pool, Anvil& anvil, Root root, std::uint64_t deltas, std::uint64_t seed,
            Tally& tally) {
  std::mt19937_64 random(seed);
  while (tally.deltas < deltas) {
    anvil.renew_a_snapshot();
    for (int hold = 0; hold < 2; ++hold) {
      if (root == Root::kHeld) pool.reserve_metadata_snapshot();
      Metadata metadata = open_metadata(pool, root);
      anvil.wait_for_strikes();
      for (int pair = 0; pair < 10; ++pair, ++tally.deltas) {
        // One that remembers nothing of what the deltas before have read.
        if (root == Root::kHeld) metadata = open_metadata(pool, root);
        tally.differing += check_a_delta(anvil, metadata, random);
      }
      if (root == Root::kHeld) pool.release_metadata_snapshot();
    }
  }
}

int run(std::string_view mode, const char* metadata, const char* data, std::uint64_t deltas,
        std::uint64_t seed) {
  redirect_dm_log();
  KernelThinPool pool(
      {kPoolName, "01900000-0000-7000-8000-000000000001", data, metadata, kBlockSize}, -1);
  const Root root = mode == "held" ? Root::kHeld : Root::kLive;
  Tally tally;
  std::string failure;
  std::uint64_t strikes = 0;
  {
    Anvil anvil(pool, seed);
    const std::uint64_t before = anvil.strikes();
    try {
      hammer(pool, anvil, root, deltas, seed, tally);
    } catch (const Wrong& wrong) {
      failure = wrong.what;
      if (root == Root::kHeld) pool.release_metadata_snapshot();
    }
    strikes = anvil.strikes() - before;
  }
  pool.shut_down();
  fmt::print("{}: {} deltas, {} differing blocks, {} strikes meanwhile, seed {}{}{}\n", mode,
             tally.deltas, tally.differing, strikes, seed, failure.empty() ? "" : ": ", failure);
  return failure.empty() == (root == Root::kHeld) ? 0 : 1;
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  if (argc != 6 || (mode != "held" && mode != "live")) return 2;
  try {
    return convoy::run(mode, argv[2], argv[3], std::strtoull(argv[4], nullptr, 10),
                       std::strtoull(argv[5], nullptr, 10));
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
