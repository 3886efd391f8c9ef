#include "devmapper/suspend_guard.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/error.h"
#include "devmapper/raw_ioctl.h"
#include "sys/file.h"

namespace convoy {
namespace {

// What goes over the socket: one packet each way.
struct WireRequest {
  DmName pool_name;
  DmName origin_name;
  std::uint32_t origin;
  std::uint32_t snapshot;
};

// Each is an errno, 0 for success.
struct WireReply {
  std::int32_t suspend;
  std::int32_t snapshot;
  std::int32_t resume;
};

WireReply serve(const UniqueFd& control, const WireRequest& request) {
  // All three are prepared before the first is run.
  std::array<char, 64> text;
  static_cast<void>(std::snprintf(text.data(), text.size(), "create_snap %u %u", request.snapshot,
                                  request.origin));
  RawIoctl suspend = RawIoctl::prepare(request.origin_name, DM_SUSPEND_FLAG);
  RawIoctl message = RawIoctl::prepare_message(request.pool_name, text.data());
  RawIoctl resume = RawIoctl::prepare(request.origin_name);

  WireReply reply = {};
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

}  // namespace

int run_suspend_guard() {
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
    WireRequest request;
    const ssize_t count = ::recv(STDIN_FILENO, &request, sizeof request, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count != sizeof request) return 0;
    const WireReply reply = serve(control, request);
    if (::send(STDIN_FILENO, &reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply) return 0;
  }
}

SuspendGuard::SuspendGuard(int lock_fd) : lock_fd_(lock_fd) {
  start();
}

SuspendGuard::~SuspendGuard() {
  stop();
}

void SuspendGuard::start() {
  std::array<int, 2> ends = {};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw system_error(errno, "socketpair");
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDIN_FILENO);
  // A copy that exec doesn't close.
  constexpr int kInheritedLock = 3;
  if (lock_fd_ >= 0) posix_spawn_file_actions_adddup2(&actions, lock_fd_, kInheritedLock);
  std::array<char*, 3> arguments = {const_cast<char*>("convoy"),
                                    const_cast<char*>(kSuspendGuardCommand), nullptr};
  const int error =
      posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw system_error(error, "can't start the suspend guard");
  socket_ = std::move(ours);
}

void SuspendGuard::stop() {
  // Not killed: if it has a device suspended at this moment, it resumes it, then finds the socket
  // closed.
  socket_.reset();
  if (pid_ > 0) {
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  pid_ = -1;
}

int SuspendGuard::snapshot(const Request& request) {
  const std::lock_guard lock(lock_);
  const WireRequest wire = {to_dm_name(request.pool_name), to_dm_name(request.origin_name),
                            request.origin, request.snapshot};
  const auto send = [&] {
    return ::send(socket_.get(), &wire, sizeof wire, MSG_NOSIGNAL) == sizeof wire;
  };
  // A request that can't be sent has reached nobody.
  if (!send()) {
    stop();
    start();
    if (!send()) throw Error(ErrorKind::kUnavailable, "the suspend guard can't be started");
  }

  WireReply reply = {};
  ssize_t count = 0;
  do {
    count = ::recv(socket_.get(), &reply, sizeof reply, 0);
  } while (count < 0 && errno == EINTR);
  if (count != sizeof reply) {
    stop();
    throw Error(ErrorKind::kUnavailable, "the suspend guard died while it snapshotted {}",
                request.origin_name);
  }
  if (reply.suspend != 0) {
    throw system_error(reply.suspend, fmt::format("can't suspend {}", request.origin_name));
  }
  if (reply.resume != 0) {
    throw system_error(reply.resume, fmt::format("can't resume {0}; run: dmsetup resume {0}",
                                                 request.origin_name));
  }
  return reply.snapshot;
}

}  // namespace convoy
