#include "volumes/filesystem.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <sstream>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/size.h"
#include "base/units.h"
#include "sys/aligned_buffer.h"
#include "sys/block_device.h"
#include "sys/file.h"
#include "sys/process.h"

namespace convoy {
namespace {

// mkfs.xfs of xfsprogs 6.1 refuses less; mke2fs can go lower, but then leaves out the journal, and
// with it crash safety.
constexpr std::uint64_t kMinXfs = 300 * kMiB;
constexpr std::uint64_t kMinExt4 = 4 * kMiB;

// fs/xfs/libxfs/xfs_format.h, struct xfs_dsb: big-endian, on the first sector.
struct XfsSuperblock {
  std::uint64_t block_size;
  std::uint64_t blocks;
  std::uint64_t group_blocks;  // of an allocation group
};

AlignedBuffer read_begin(const std::filesystem::path& device) {
  AlignedBuffer begin(kDirectAlignment);
  read_exactly_at(BlockDevice::open(device, Access::kReadOnly).fd(), begin.bytes(), 0);
  return begin;
}

std::optional<XfsSuperblock> find_xfs(const AlignedBuffer& begin) {
  const auto number_at = [&](std::size_t offset, std::size_t length) {
    std::uint64_t number = 0;
    for (const std::byte byte : begin.bytes().subspan(offset, length))
      number = number << 8U | std::to_integer<std::uint64_t>(byte);
    return number;
  };
  if (as_text(begin.bytes().first(4)) != "XFSB") return std::nullopt;
  return XfsSuperblock{
      .block_size = number_at(4, 4), .blocks = number_at(8, 8), .group_blocks = number_at(84, 4)};
}

// Takes an option out of a command's words, each time it is there, and gives its values.
std::vector<std::string> take_values(std::vector<std::string>& words, std::string_view option) {
  std::vector<std::string> values;
  for (auto word = words.begin(); word != words.end();) {
    if (!word->starts_with(option)) {
      ++word;
      continue;
    }
    std::string value = word->substr(option.size());
    word = words.erase(word);
    if (value.empty() && word != words.end()) {
      value = *word;
      word = words.erase(word);
    }
    values.push_back(std::move(value));
  }
  return values;
}

}  // namespace

void check_filesystem(std::string_view type) {
  if (type == "ext4" || type == "xfs") return;
  throw Error(ErrorKind::kInvalidArgument,
              "'{}' is not a file system that volumes can have: choose ext4 or xfs", type);
}

void check_filesystem_size(std::string_view type, std::uint64_t size) {
  const std::uint64_t least = type == "xfs" ? kMinXfs : kMinExt4;
  if (size >= least) return;
  throw Error(ErrorKind::kInvalidArgument, "{} is too small for {}: a volume needs at least {}",
              format_size(size), type, format_size(least));
}

std::vector<std::string> mkfs_command(const std::string& type, const std::string& options) {
  std::istringstream in(options);
  std::vector<std::string> words(std::istream_iterator<std::string>(in), {});
  std::vector<std::string> command;
  if (type == "xfs") {
    // -K: no discard, the device is empty. -f: what looks like an old file system is a new device's
    // zeros.
    command = {"mkfs.xfs", "-q", "-f", "-K"};
    // mkfs.xfs fills the log. By default it has 1/2048 of a large volume, 512 MiB of 1 TiB; this is
    // the default of small ones. mkfs.xfs takes no option twice.
    if (std::ranges::none_of(words, [](const auto& word) { return word.starts_with("-l"); }))
      command.insert(command.end(), {"-l", "size=64m"});
  } else {
    // A fresh thin device reads as zeros, so nothing need be zeroed, now or later by the kernel's
    // lazy initialisation, which would fill pool blocks and make the next backup larger. Bitmaps
    // and inode tables in one place, not in each 2 GiB: of a volume of 1 TiB an empty file system
    // then takes 50 MiB of the pool's blocks of 2 MiB, not 1070. (sparse_super2 would make that 18,
    // but the kernel can't resize such a file system while it is mounted.) mke2fs obeys only the
    // last -E.
    std::string extended = "nodiscard,assume_storage_prezeroed=1,packed_meta_blocks=1";
    for (std::string& more : take_values(words, "-E")) extended += ',' + more;
    command = {"mkfs.ext4", "-q", "-F", "-E", extended};
  }
  command.insert(command.end(), words.begin(), words.end());
  return command;
}

void make_filesystem(const std::string& type, const std::filesystem::path& device,
                     const std::string& options, std::chrono::milliseconds timeout,
                     const std::stop_token& stop) {
  std::vector<std::string> command = mkfs_command(type, options);
  command.push_back(device.native());
  run_command(command, timeout, stop);
}

std::uint64_t least_trim(const std::filesystem::path& device) {
  const std::optional<XfsSuperblock> xfs = find_xfs(read_begin(device));
  return xfs ? std::max<std::uint64_t>(xfs->block_size * xfs->group_blocks, 1) : 1;
}

std::optional<FoundFilesystem> find_filesystem(const std::filesystem::path& device) {
  const AlignedBuffer begin = read_begin(device);
  if (const auto xfs = find_xfs(begin))
    return FoundFilesystem{.type = "xfs", .size = xfs->block_size * xfs->blocks};
  // Documentation/filesystems/ext4/super.rst; ext2 and ext3 are mounted as ext4, too.
  constexpr std::size_t kBegin = 1024;
  const auto number_at = [&](std::size_t offset) {
    Le32 number;
    std::memcpy(&number, begin.bytes().data() + kBegin + offset, sizeof number);
    return std::uint64_t{number.get()};
  };
  constexpr std::uint64_t kMagic = 0xEF53;
  if ((number_at(0x38) & 0xFFFFU) != kMagic) return std::nullopt;
  constexpr std::uint64_t k64Bit = 0x80;  // of the incompatible features
  const std::uint64_t high = (number_at(0x60) & k64Bit) != 0 ? number_at(0x150) : 0;
  const std::uint64_t blocks = number_at(0x4) | high << 32U;
  return FoundFilesystem{.type = "ext4", .size = blocks << (10 + number_at(0x18) % 8)};
}

std::string mount_options(std::string_view type, const std::string& own) {
  // A restored volume has its origin's UUID, and xfs refuses to mount two of the same. No
  // "discard": it would slow every delete of a file down; 'convoy trim' does it when it suits.
  std::string options = type == "xfs" ? "nouuid" : "";
  if (!options.empty() && !own.empty()) options += ',';
  return options + own;
}

}  // namespace convoy
