#include "sys/block_device.h"

#include <cerrno>
#include <memory>

#include <blkid/blkid.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/error.h"
#include "sys/file.h"

namespace convoy {
namespace {

std::uint64_t size_of(int fd, const std::filesystem::path& path) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0)
    throw system_error(errno, fmt::format("can't examine {}", path.native()));
  if (S_ISREG(info.st_mode)) return static_cast<std::uint64_t>(info.st_size);
  if (!S_ISBLK(info.st_mode))
    throw Error(ErrorKind::kInvalidArgument, "{} is not a block device", path.native());
  std::uint64_t size = 0;
  if (::ioctl(fd, BLKGETSIZE64, &size) != 0) {
    throw system_error(errno, fmt::format("can't read the size of {}", path.native()));
  }
  return size;
}

}  // namespace

BlockDevice BlockDevice::open(const std::filesystem::path& path, Access access) {
  const int flags = access == Access::kReadOnly ? O_RDONLY : O_RDWR;
  const int direct = ::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC);
  // tmpfs and a few others refuse O_DIRECT with EINVAL: an image there is read through the page
  // cache.
  UniqueFd fd = direct >= 0 || errno != EINVAL ? UniqueFd(direct) : open_file(path, flags);
  if (!fd) fd = open_file(path, flags | O_DIRECT);  // once more, for its error
  const std::uint64_t size = size_of(fd.get(), path);
  return {std::move(fd), size};
}

std::optional<dev_t> block_device_number(const std::filesystem::path& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISBLK(info.st_mode)) return std::nullopt;
  return info.st_rdev;
}

std::uint64_t block_device_size(const std::filesystem::path& path) {
  return size_of(open_file(path, O_RDONLY).get(), path);
}

UniqueFd claim_device(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
  if (fd) return fd;
  if (errno == EBUSY) throw Error(ErrorKind::kBusy, "{} is in use", path.native());
  throw system_error(errno, fmt::format("can't open {}", path.native()));
}

bool is_held(const std::filesystem::path& path) {
  // On a block device, O_EXCL without O_CREAT asks for the kernel's exclusive claim, which mounts
  // and dm tables hold.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  return !fd && errno == EBUSY;
}

std::optional<std::string> find_signature(const std::filesystem::path& path) {
  const std::unique_ptr<blkid_struct_probe, decltype(&blkid_free_probe)> probe(
      blkid_new_probe_from_filename(path.c_str()), &blkid_free_probe);
  if (!probe)
    throw system_error(errno, fmt::format("can't look for signatures on {}", path.native()));
  blkid_probe_enable_partitions(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE);

  const int result = blkid_do_safeprobe(probe.get());
  if (result == 1) return std::nullopt;
  // -2: several signatures that contradict each other. Whatever they are, the device is not empty.
  if (result == -2) return "several signatures";
  if (result != 0)
    throw Error(ErrorKind::kIo, "can't read {} to look for signatures", path.native());
  for (const char* const value : {"TYPE", "PTTYPE"}) {
    const char* data = nullptr;
    if (blkid_probe_lookup_value(probe.get(), value, &data, nullptr) == 0) return data;
  }
  return "an unnamed signature";
}

std::uint64_t max_discard_bytes(dev_t device) {
  const std::string directory = fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
  // A partition has no queue of its own; its directory is inside its disk's.
  for (const char* const queue : {"/queue", "/../queue"}) {
    const std::filesystem::path file = directory + queue + "/discard_max_bytes";
    if (std::filesystem::exists(file)) return std::stoull(read_text_file(file));
  }
  return 0;
}

}  // namespace convoy
