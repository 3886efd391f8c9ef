#include "volumes/filesystem.h"

#include <algorithm>
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
  // fs/xfs/libxfs/xfs_format.h, struct xfs_dsb: big-endian, on the first sector.
  constexpr std::size_t kBlockSize = 4;
  constexpr std::size_t kGroupBlocks = 84;
  AlignedBuffer sector(kDirectAlignment);
  const BlockDevice opened = BlockDevice::open(device, Access::kReadOnly);
  read_exactly_at(opened.fd(), sector.bytes(), 0);
  const auto number_at = [&](std::size_t offset) {
    std::uint64_t number = 0;
    for (const std::byte byte : sector.bytes().subspan(offset, 4))
      number = number << 8U | std::to_integer<std::uint64_t>(byte);
    return number;
  };
  if (as_text(std::as_const(sector).bytes().first(4)) != "XFSB") return 1;
  return std::max<std::uint64_t>(number_at(kBlockSize) * number_at(kGroupBlocks), 1);
}

std::string mount_options(std::string_view type, const std::string& own) {
  // A restored volume has its origin's UUID, and xfs refuses to mount two of the same. No
  // "discard": it would slow every delete of a file down; 'convoy trim' does it when it suits.
  std::string options = type == "xfs" ? "nouuid" : "";
  if (!options.empty() && !own.empty()) options += ',';
  return options + own;
}

}  // namespace convoy
