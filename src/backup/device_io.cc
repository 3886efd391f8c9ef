#include "backup/device_io.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "sys/file.h"

namespace convoy {
namespace {

// Lifts O_DIRECT from a descriptor as long as it lives.
class ThroughPageCache {
 public:
  explicit ThroughPageCache(int fd) : fd_(fd), flags_(::fcntl(fd, F_GETFL)) {
    if (flags_ < 0 || ::fcntl(fd_, F_SETFL, flags_ & ~O_DIRECT) != 0) {
      throw system_error(errno, "can't switch off direct I/O");
    }
  }
  ~ThroughPageCache() { ::fcntl(fd_, F_SETFL, flags_); }
  ThroughPageCache(const ThroughPageCache&) = delete;
  ThroughPageCache& operator=(const ThroughPageCache&) = delete;

 private:
  int fd_;
  int flags_;
};

}  // namespace

std::uint64_t device_size(int fd) {
  // Unlike fstat, this gives the size of a block device too. Nobody else uses the descriptor's
  // position.
  const off_t end = ::lseek(fd, 0, SEEK_END);
  if (end < 0) throw system_error(errno, "can't find out the device's size");
  return static_cast<std::uint64_t>(end);
}

void read_device(int fd, AlignedBuffer& buffer, std::uint64_t offset, std::size_t length) {
  // Asking for more than the device has is no error, and the only way to read the end of a file on
  // a disk with sectors of 4 KiB.
  const std::size_t aligned = (length + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
  std::size_t done = 0;
  while (done < length) {
    const ssize_t count = ::pread(fd, buffer.bytes().data() + done, aligned - done,
                                  static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      throw system_error(
          errno, fmt::format("can't read {} bytes of the volume at offset {}", length, offset));
    }
    if (count == 0) {
      throw Error(ErrorKind::kIo, "the volume's device ends at byte {}", offset + done);
    }
    done += static_cast<std::size_t>(count);
  }
}

void write_device(int fd, std::span<const std::byte> data, std::uint64_t offset) {
  const std::size_t direct = data.size() / kDirectAlignment * kDirectAlignment;
  write_all_at(fd, data.first(direct), offset);
  if (direct == data.size()) return;
  // The rest is whole sectors of 512 bytes, but the disk's may have 4 KiB.
  const ThroughPageCache cached(fd);
  write_all_at(fd, data.subspan(direct), offset + direct);
}

void discard_device(int fd, std::uint64_t offset, std::uint64_t length) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0) throw system_error(errno, "can't examine the device");
  int result = 0;
  if (S_ISBLK(info.st_mode)) {
    const std::array<std::uint64_t, 2> range = {offset, length};
    result = ::ioctl(fd, BLKDISCARD, range.data());
  } else {
    result = ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                         static_cast<off_t>(length));
  }
  if (result != 0)
    throw system_error(
        errno, fmt::format("can't discard {} bytes of the volume at offset {}", length, offset));
  crash_point("discard");
}

}  // namespace convoy
