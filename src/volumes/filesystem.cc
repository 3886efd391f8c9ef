#include "volumes/filesystem.h"

#include "base/error.h"
#include "base/size.h"
#include "base/units.h"
#include "sys/process.h"

namespace convoy {
namespace {

// mkfs.xfs of xfsprogs 6.1 refuses less; mke2fs can go lower, but then leaves out the journal, and
// with it crash safety.
constexpr std::uint64_t kMinXfs = 300 * kMiB;
constexpr std::uint64_t kMinExt4 = 4 * kMiB;

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

void make_filesystem(const std::string& type, const std::filesystem::path& device,
                     std::chrono::milliseconds timeout) {
  if (type == "xfs") {
    // -K: no discard, the device is empty. -f: what looks like an old file system is a new device's
    // zeros.
    run_command({"mkfs.xfs", "-q", "-f", "-K", device.native()}, timeout);
    return;
  }
  // A fresh thin device reads as zeros, so nothing need be zeroed, now or later by the kernel's
  // lazy initialisation, which would fill pool blocks and make the next backup larger.
  run_command(
      {"mkfs.ext4", "-q", "-F", "-E", "nodiscard,assume_storage_prezeroed=1", device.native()},
      timeout);
}

std::string mount_options(std::string_view type) {
  // A restored volume has its origin's UUID, and xfs refuses to mount two of the same.
  return type == "xfs" ? "nouuid" : "";
}

}  // namespace convoy
