#include "devmapper/raw_ioctl.h"

#include <cerrno>
#include <cstddef>
#include <cstring>

#include <fcntl.h>
#include <sys/sysmacros.h>

namespace convoy {

RawIoctl RawIoctl::prepare(const DmName& name, unsigned flags) {
  RawIoctl request = {};
  request.header.version[0] = DM_VERSION_MAJOR;
  request.header.data_size = sizeof request;
  request.header.data_start = offsetof(RawIoctl, payload);
  request.header.flags = flags;
  std::memcpy(request.header.name, name.data(), name.size());
  return request;
}

RawIoctl RawIoctl::prepare_message(const DmName& name, const char* message) {
  // The message follows its dm_target_msg, which holds the sector.
  constexpr std::size_t kOffset = offsetof(dm_target_msg, message);
  RawIoctl request = prepare(name);
  std::strncpy(request.payload.data() + kOffset, message, request.payload.size() - kOffset - 1);
  return request;
}

int RawIoctl::run(const UniqueFd& control, unsigned long command) {
  return ::ioctl(control.get(), command, this) == 0 ? 0 : errno;
}

dev_t RawIoctl::device() const {
  // As the kernel packs it (linux/kdev_t.h: huge_encode_dev).
  return makedev(header.dev >> 8U & 0xfffU, (header.dev & 0xffU) | (header.dev >> 12U & 0xfff00U));
}

UniqueFd open_dm_control() {
  return UniqueFd(::open("/dev/mapper/control", O_RDWR | O_CLOEXEC));
}

}  // namespace convoy
