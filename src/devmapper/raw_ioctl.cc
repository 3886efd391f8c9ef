#include "devmapper/raw_ioctl.h"

#include <cerrno>
#include <cstddef>
#include <cstring>

#include <fcntl.h>
#include <sys/sysmacros.h>

#include "base/error.h"

namespace convoy {

DmName to_dm_name(const std::string& name) {
  DmName result = {};
  if (name.size() >= result.size())
    throw Error(ErrorKind::kInvalidArgument, "'{}' is too long for a dm device's name", name);
  name.copy(result.data(), name.size());
  return result;
}

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

std::optional<DmTarget> RawIoctl::only_target(const std::string& name) const {
  if (header.target_count == 0) return std::nullopt;
  if (header.target_count > 1 || (header.flags & DM_BUFFER_FULL_FLAG) != 0)
    throw Error(ErrorKind::kCorrupt, "the dm device {} has a table of several lines", name);
  dm_target_spec spec;
  std::memcpy(&spec, payload.data(), sizeof spec);
  return DmTarget{{spec.length}, spec.target_type, payload.data() + sizeof spec};
}

UniqueFd open_dm_control() {
  return UniqueFd(::open("/dev/mapper/control", O_RDWR | O_CLOEXEC));
}

}  // namespace convoy
