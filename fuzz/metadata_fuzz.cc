// Whatever a metadata device holds, the reader answers or throws convoy::Error: no crash, no
// endless loop, no memory without bound. A libFuzzer target.
//
// An input is the start of a metadata device, block by block; what follows is zeros. In place of
// each block's checksum it has what kind of block this is to pass for: otherwise no change would
// come further than to the checksum. tests/vm/fuzz_corpus_test.py makes such inputs of real pools.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "sys/file.h"
#include "thinmeta/crc32c.h"
#include "thinmeta/disk_format.h"
#include "thinmeta/metadata.h"

namespace convoy::thinmeta {
namespace {

constexpr std::uint64_t kDeviceBlocks = 4096;
constexpr std::size_t kDevicesRead = 6;

// By the lowest bits of the kind; others leave the block with a checksum that is wrong.
constexpr std::array<std::uint32_t, 4> kChecksumXors = {
    kSuperblockChecksumXor, kNodeChecksumXor, kBitmapChecksumXor, kBitmapIndexChecksumXor};
// In the kind: the block keeps the number that it says it has.
constexpr std::uint32_t kOwnNumberAsItIs = 16;

void seal(std::span<std::byte> block, std::uint64_t number) {
  auto header = struct_at<DiskBlockHeader>(block, 0);
  const std::uint32_t kind = header.checksum;
  if ((kind & kOwnNumberAsItIs) == 0) header.own_number = number;
  std::memcpy(block.data(), &header, sizeof header);
  if ((kind & ~kOwnNumberAsItIs) < kChecksumXors.size())
    header.checksum = crc32c(block.subspan(sizeof header.checksum)) ^ kChecksumXors[kind & 3U];
  std::memcpy(block.data(), &header, sizeof header);
}

// Attempts to read on, each of which may fail.
template <typename Action>
void attempt(Action&& action) {
  try {
    action();
  } catch (const Error&) {  // the right answer to damage
  }
}

void read_everything(const std::string& path, Root root) {
  Metadata metadata(BlockDevice::open(path, Access::kReadOnly), root);
  std::vector<std::uint32_t> ids;
  attempt([&] {
    for (const auto& [id, details] : metadata.devices()) ids.push_back(id);
  });
  if (ids.empty()) ids = {1, 2, 3};
  if (ids.size() > kDevicesRead) ids.resize(kDevicesRead);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::uint32_t other = ids[(i + 1) % ids.size()];
    attempt([&] { metadata.find_device(ids[i]); });
    attempt([&] { metadata.mappings(ids[i], [](const Mapping&) {}); });
    attempt([&] { metadata.delta(ids[i], other, [](const DeltaRange&) {}); });
    attempt([&] { metadata.compare(ids[i], other, Same::kVisited, [](const BlockPair&) {}); });
  }
  attempt([&] {
    const CheckDepth depth = root == Root::kLive ? CheckDepth::kSpaceMaps : CheckDepth::kMappings;
    metadata.check(depth, {[](const char*) {}, [](const Finding&) {}});
  });
}

// One device in memory for all inputs.
class Device {
 public:
  Device()
      : fd_(::memfd_create("metadata", MFD_CLOEXEC)),
        path_(fmt::format("/proc/self/fd/{}", fd_.get())) {}

  void fill(std::span<const std::byte> content) {
    if (::ftruncate(fd_.get(), 0) != 0) std::abort();
    if (::ftruncate(fd_.get(), kDeviceBlocks * kBlockSize) != 0) std::abort();
    write_all_at(fd_.get(), content, 0);
  }
  const std::string& path() const { return path_; }

 private:
  UniqueFd fd_;
  std::string path_;
};

void run(std::span<const std::byte> input) {
  static Device device;
  std::vector<std::byte> content(input.begin(), input.end());
  content.resize(std::min(content.size() / kBlockSize, kDeviceBlocks) * kBlockSize);
  for (std::uint64_t number = 0; number < content.size() / kBlockSize; ++number)
    seal(std::span(content).subspan(number * kBlockSize, kBlockSize), number);
  device.fill(content);
  attempt([&] {
    read_everything(device.path(), Root::kLive);
    read_everything(device.path(),
                    Root::kHeld);  // only if the live superblock is sound: else it waits for that
  });
}

// --- Changes that are worth trying ---

// A value as the reader is to be deceived by: another block's number, a limit, one more or less.
std::uint64_t tempting_value(std::uint64_t now, std::uint64_t blocks, std::mt19937& random) {
  switch (random() % 8) {
    case 0:
      return random() % (blocks + 1);
    case 1:
      return now + 1;
    case 2:
      return now - 1;
    case 3:
      return 0;
    case 4:
      return ~std::uint64_t{0};
    case 5:
      return std::uint64_t{1} << random() % 64;
    case 6:
      return now ^ std::uint64_t{1} << random() % 64;
    default:
      return (random() % (blocks + 1)) << kMappingTimeBits | random() % 4;
  }
}

// Changes a field of a block: of its header, or one of its keys or values.
void change_field(std::span<std::byte> block, std::uint64_t blocks, std::mt19937& random) {
  const auto header = struct_at<DiskNodeHeader>(block, 0);
  const std::uint64_t entries = std::clamp<std::uint64_t>(header.entries, 1, 252);
  const std::uint64_t index = random() % entries;
  std::size_t offset = 0;
  switch (random() % 4) {
    case 0:
      offset = random() % (sizeof(DiskNodeHeader) / 4) * 4;
      break;
    case 1:
      offset = sizeof(DiskNodeHeader) + index * kKeySize;
      break;
    case 2:
      offset = sizeof(DiskNodeHeader) +
               std::min<std::uint64_t>(header.max_entries, 252) * kKeySize + index * kChildSize;
      break;
    default:
      offset = random() % (kBlockSize / 8) * 8;
      break;
  }
  if (random() % 4 == 0 || offset % 8 != 0) {
    const Le32 value =
        static_cast<std::uint32_t>(tempting_value(struct_at<Le32>(block, offset), blocks, random));
    std::memcpy(block.data() + offset, &value, sizeof value);
  } else {
    const Le64 value = tempting_value(struct_at<Le64>(block, offset), blocks, random);
    std::memcpy(block.data() + offset, &value, sizeof value);
  }
}

std::size_t mutate(std::span<std::byte> room, std::size_t size, std::mt19937& random) {
  const std::uint64_t blocks = size / kBlockSize;
  const auto block = [&](std::uint64_t number) {
    return room.subspan(number * kBlockSize, kBlockSize);
  };
  for (unsigned changes = 1 + random() % 4; changes > 0; --changes) {
    const std::uint64_t number = random() % blocks;
    if (random() % 8 == 0) {  // a node in another's place
      std::ranges::copy(block(random() % blocks), block(number).begin());
    } else {
      change_field(block(number), blocks, random);
    }
  }
  return size;
}

}  // namespace
}  // namespace convoy::thinmeta

// libFuzzer's names (https://llvm.org/docs/LibFuzzer.html), and its types.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  convoy::thinmeta::run(std::as_bytes(std::span(data, size)));
  return 0;
}

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  std::mt19937 random(seed);
  if (size < convoy::thinmeta::kBlockSize || random() % 8 == 0)
    return LLVMFuzzerMutate(data, size, max_size);
  return convoy::thinmeta::mutate(std::as_writable_bytes(std::span(data, size)), size, random);
}
