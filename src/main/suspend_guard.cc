// convoy-suspend-guard: snapshots active devices for the daemon (devmapper/suspend_guard.h), which
// starts it with a socket as its standard input.
//
// A program of its own, without shared libraries: all of it is locked in memory. As a part of the
// daemon's program it locked forty libraries there, too.
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devmapper/raw_ioctl.h"
#include "devmapper/suspend_guard_protocol.h"
#include "sys/unique_fd.h"

namespace convoy {
namespace {

SuspendGuardReply serve(const UniqueFd& control, const SuspendGuardRequest& request) {
  // All three are prepared before the first is run.
  std::array<char, 64> text;
  static_cast<void>(std::snprintf(text.data(), text.size(), "create_snap %u %u", request.snapshot,
                                  request.origin));
  RawIoctl suspend = RawIoctl::prepare(request.origin_name, DM_SUSPEND_FLAG);
  RawIoctl message = RawIoctl::prepare_message(request.pool_name, text.data());
  RawIoctl resume = RawIoctl::prepare(request.origin_name);

  SuspendGuardReply reply = {};
  reply.suspend = suspend.run(control, DM_DEV_SUSPEND);
  if (reply.suspend != 0) return reply;
  reply.snapshot = message.run(control, DM_TARGET_MSG);
  // Without memory the kernel may refuse for a moment; somebody's writers depend on it.
  for (int tries = 0; tries < 100; ++tries) {
    reply.resume = resume.run(control, DM_DEV_SUSPEND);
    if (reply.resume == 0) break;
    ::usleep(100'000);
    resume = RawIoctl::prepare(request.origin_name);
  }
  return reply;
}

// Returns the process's exit status.
int run_suspend_guard() {
  // The daemon starts it by a descriptor, whose number would be its name.
  ::prctl(PR_SET_NAME, "convoy-guard");
  // The daemon's stop must not stop a snapshot half-way; the guard ends with the socket. And a
  // session of its own keeps the terminal's signals away.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE})
    static_cast<void>(std::signal(signal, SIG_IGN));
  ::setsid();
  const UniqueFd control = open_dm_control();
  if (!control) return 1;
  // Neither paged out nor chosen by the OOM killer while a device is suspended. What of this is
  // refused (no right to, under a limit) leaves the guard as good as any process.
  ::mlockall(MCL_CURRENT | MCL_FUTURE);
  const UniqueFd oom(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (oom) (void)!::write(oom.get(), "-1000", 5);

  while (true) {
    SuspendGuardRequest request;
    const ssize_t count = ::recv(STDIN_FILENO, &request, sizeof request, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count != sizeof request) return 0;
    const SuspendGuardReply reply = serve(control, request);
    if (::send(STDIN_FILENO, &reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply) return 0;
  }
}

}  // namespace
}  // namespace convoy

int main() {
  return convoy::run_suspend_guard();
}
