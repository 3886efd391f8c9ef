// Block devices: what they are, how large, what is on them, who has them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <sys/types.h>

#include "sys/unique_fd.h"

namespace convoy {

enum class Access { kReadOnly, kReadWrite };

// An open block device, or a regular file in its place (images of devices are read by tools and
// tests). Reads and writes by its descriptor are O_DIRECT where the file system can, so they must
// be aligned as AlignedBuffer says.
class BlockDevice {
 public:
  // Throws kNotFound, or kIo if it can't be opened, or kInvalidArgument if it is neither a block
  // device nor a regular file.
  static BlockDevice open(const std::filesystem::path& path, Access access);

  int fd() const { return fd_.get(); }
  // In bytes, read at open.
  std::uint64_t size() const { return size_; }

 private:
  BlockDevice(UniqueFd fd, std::uint64_t size) : fd_(std::move(fd)), size_(size) {}

  UniqueFd fd_;
  std::uint64_t size_;
};

// The device number of the block device at `path`; nothing if there is no file, or one of another
// kind.
std::optional<dev_t> block_device_number(const std::filesystem::path& path);

// Size of the block device at `path` in bytes. Throws as BlockDevice::open does.
std::uint64_t block_device_size(const std::filesystem::path& path);

// A claim to the device: while it is open, nobody can mount it or build a device on it. Throws
// kBusy if somebody has, kIo if it can't be opened for writing.
UniqueFd claim_device(const std::filesystem::path& path);

// True if a file system, a device above or another program holds the device exclusively.
bool is_held(const std::filesystem::path& path);

// What libblkid finds on the device: a file system, RAID, LVM or partition table by its name, such
// as "ext4". Nothing if it finds none. Throws kIo if the device can't be read.
std::optional<std::string> find_signature(const std::filesystem::path& path);

// The largest discard that the device takes at once, in bytes; 0 if it takes none.
// (/sys/dev/block/<n>/queue/discard_max_bytes)
std::uint64_t max_discard_bytes(dev_t device);

}  // namespace convoy
