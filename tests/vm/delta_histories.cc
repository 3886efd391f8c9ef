// Random histories of a real pool, and our delta of two of its devices beside Debian's thin_delta.
//
//   delta_histories DATA-DEVICE METADATA-DEVICE HISTORIES SEED
//
// Each history writes and discards in a volume, takes and deletes snapshots, and snapshots
// snapshots; then pairs of devices are compared under one metadata snapshot. Ends with status 1 at
// the first difference, saying the seed that repeats it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string_view>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "base/error.h"
#include "devmapper/dm_task.h"
#include "devmapper/kernel_thin_pool.h"
#include "sys/aligned_buffer.h"
#include "sys/file.h"
#include "thinmeta/metadata.h"

namespace convoy {
namespace {

constexpr Sectors kBlockSize{128};
constexpr const char* kPoolName = "histories";
constexpr const char* kVolumeName = "history";

// What a delta says, block by block: '+' only in the second device, '-' only in the first, '!' in
// both and different.
using BlockDelta = std::map<std::uint64_t, char>;

void add(BlockDelta& delta, std::uint64_t begin, std::uint64_t end, char change) {
  for (std::uint64_t block = begin; block < end; ++block) delta[block] = change;
}

BlockDelta our_delta(Metadata& metadata, std::uint32_t first, std::uint32_t second) {
  BlockDelta delta;
  metadata.delta(first, second, [&](const DeltaRange& range) {
    const char change = range.change == Change::kAdded     ? '+'
                        : range.change == Change::kRemoved ? '-'
                                                           : '!';
    add(delta, range.begin.count, range.end.count, change);
  });
  return delta;
}

BlockDelta thin_delta(const std::string& metadata_device, std::uint32_t first,
                      std::uint32_t second) {
  const std::string command =
      fmt::format("thin_delta -m --thin1 {} --thin2 {} {}", first, second, metadata_device);
  std::unique_ptr<FILE, int (*)(FILE*)> output(::popen(command.c_str(), "r"), &::pclose);
  if (!output) throw system_error(errno, command);
  BlockDelta delta;
  char line[256];
  while (std::fgets(line, sizeof line, output.get()) != nullptr) {
    char kind[32];
    unsigned long long begin = 0, length = 0;
    if (std::sscanf(line, " <%31[a-z_] begin=\"%llu\" length=\"%llu\"/>", kind, &begin, &length) !=
        3)
      continue;
    const std::string_view name = kind;
    if (name == "left_only") add(delta, begin, begin + length, '-');
    if (name == "right_only") add(delta, begin, begin + length, '+');
    if (name == "different") add(delta, begin, begin + length, '!');
  }
  if (const int status = ::pclose(output.release()); status != 0)
    throw Error(ErrorKind::kInternal, "{} ended with {}", command, status);
  return delta;
}

class History {
 public:
  History(KernelThinPool& pool, std::uint64_t seed) : pool_(pool), random_(seed) {
    blocks_ = pick(40, 4000);
    pool_.create_thin({kVolume});
    pool_.activate(kVolumeName, "01900000-0000-7000-8000-000000000000", {kVolume},
                   {blocks_ * kBlockSize.count}, Access::kReadWrite);
    device_ = open_file(std::string("/dev/mapper/") + kVolumeName, O_RDWR | O_DIRECT);
    std::ranges::fill(page_.bytes(), std::byte{1});
  }
  History(const History&) = delete;
  History& operator=(const History&) = delete;
  ~History() {
    device_.reset();
    pool_.deactivate(kVolumeName);
    pool_.delete_thin({kVolume});
    for (const std::uint32_t snapshot : snapshots_) pool_.delete_thin({snapshot});
  }

  void play() {
    write_range();  // thin_delta can't take a device without mappings
    const std::uint64_t steps = pick(5, 60);
    for (std::uint64_t step = 0; step < steps; ++step) {
      switch (pick(0, 9)) {
        case 0:
        case 1:
          take_snapshot();
          break;
        case 2:
          discard_range();
          break;
        case 3:
          delete_snapshot();
          break;
        case 4:
        case 5:
        case 6:
          write_scattered();
          break;
        default:
          write_range();
          break;
      }
    }
    take_snapshot();
    write_scattered();
    take_snapshot();
  }

  // The devices with at least one mapping.
  std::vector<std::uint32_t> devices(Metadata& metadata) const {
    std::vector<std::uint32_t> mapped;
    for (const auto& [id, details] : metadata.devices()) {
      if (details.mapped_blocks > 0) mapped.push_back(id);
    }
    return mapped;
  }

  std::uint64_t pick(std::uint64_t least, std::uint64_t most) {
    return std::uniform_int_distribution<std::uint64_t>(least, most)(random_);
  }

 private:
  static constexpr std::uint32_t kVolume = 1;

  void write_block(std::uint64_t block) {
    const std::uint64_t page = pick(0, kBlockSize.bytes() / kDirectAlignment - 1);
    write_all_at(device_.get(), page_.bytes(),
                 block * kBlockSize.bytes() + page * kDirectAlignment);
  }

  void write_range() {
    const std::uint64_t begin = pick(0, blocks_ - 1);
    const std::uint64_t end = std::min(blocks_, begin + pick(1, 200));
    for (std::uint64_t block = begin; block < end; ++block) write_block(block);
  }

  void write_scattered() {
    for (std::uint64_t count = pick(1, 40); count > 0; --count) write_block(pick(0, blocks_ - 1));
  }

  void discard_range() {
    const std::uint64_t begin = pick(0, blocks_ - 1);
    const std::uint64_t end = std::min(blocks_, begin + pick(1, 300));
    const std::uint64_t range[2] = {begin * kBlockSize.bytes(), (end - begin) * kBlockSize.bytes()};
    if (::ioctl(device_.get(), BLKDISCARD, range) != 0) throw system_error(errno, "BLKDISCARD");
  }

  void take_snapshot() {
    const std::uint32_t id = ++last_id_;
    const bool of_snapshot = !snapshots_.empty() && pick(0, 3) == 0;
    if (of_snapshot) {
      pool_.create_snapshot({id}, {snapshots_[pick(0, snapshots_.size() - 1)]}, std::nullopt);
    } else {
      pool_.create_snapshot({id}, {kVolume}, kVolumeName);
    }
    snapshots_.push_back(id);
  }

  void delete_snapshot() {
    if (snapshots_.empty()) return;
    const auto chosen =
        snapshots_.begin() + static_cast<std::ptrdiff_t>(pick(0, snapshots_.size() - 1));
    pool_.delete_thin({*chosen});
    snapshots_.erase(chosen);
  }

  KernelThinPool& pool_;
  std::mt19937_64 random_;
  std::uint64_t blocks_ = 0;
  UniqueFd device_;
  AlignedBuffer page_{kDirectAlignment};
  std::uint32_t last_id_ = kVolume;
  std::vector<std::uint32_t> snapshots_;
};

// Compares some pairs of the history's devices, in both directions. The number of blocks that
// differed.
std::size_t compare(History& history, KernelThinPool& pool, std::uint64_t seed) {
  std::size_t differing = 0;
  pool.reserve_metadata_snapshot();
  {
    Metadata metadata(BlockDevice::open(pool.metadata_device(), Access::kReadOnly), Root::kHeld);
    const std::vector<std::uint32_t> devices = history.devices(metadata);
    for (int pair = 0; pair < 2 && !devices.empty(); ++pair) {
      const std::uint32_t first = devices[history.pick(0, devices.size() - 1)];
      const std::uint32_t second = devices[history.pick(0, devices.size() - 1)];
      const BlockDelta ours = our_delta(metadata, first, second);
      if (ours != thin_delta(pool.metadata_device(), first, second)) {
        throw Error(ErrorKind::kInternal, "seed {}: the deltas of devices {} and {} differ", seed,
                    first, second);
      }
      differing += ours.size();
    }
  }
  pool.release_metadata_snapshot();
  return differing;
}

int run(const char* data, const char* metadata, std::uint64_t histories, std::uint64_t seed) {
  redirect_dm_log();
  KernelThinPool pool(
      {kPoolName, "01900000-0000-7000-8000-000000000001", data, metadata, kBlockSize}, -1);
  std::size_t differing = 0;
  for (std::uint64_t i = 0; i < histories; ++i) {
    History history(pool, seed + i);
    history.play();
    differing += compare(history, pool, seed + i);
  }
  pool.shut_down();
  fmt::print("{} histories from seed {}: {} blocks differed, as thin_delta says\n", histories, seed,
             differing);
  return differing > 0 ? 0 : 1;
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    return convoy::run(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10),
                       std::strtoull(argv[4], nullptr, 10));
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
