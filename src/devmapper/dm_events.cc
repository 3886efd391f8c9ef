#include "devmapper/dm_events.h"

#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/eventfd.h>

#include "base/error.h"
#include "devmapper/raw_ioctl.h"

namespace convoy {

DmEvents::DmEvents() : control_(open_dm_control()), wake_(::eventfd(0, EFD_CLOEXEC)) {
  if (!control_) throw system_error(errno, "can't open /dev/mapper/control");
  if (!wake_) throw system_error(errno, "eventfd");
}

void DmEvents::wait(std::chrono::milliseconds timeout, const std::stop_token& stop) {
  const std::stop_callback wake(stop, [this] { ::eventfd_write(wake_.get(), 1); });
  std::array<pollfd, 2> waiting = {{{control_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
  if (::poll(waiting.data(), waiting.size(), static_cast<int>(timeout.count())) < 0 &&
      errno != EINTR)
    throw system_error(errno, "poll");
  // Events from now on end the next wait. Linux knows this since 4.13.
  if (const int error = RawIoctl::prepare({}).run(control_, DM_DEV_ARM_POLL); error != 0)
    throw system_error(error, "device mapper's events");
}

}  // namespace convoy
