#include "devmapper/suspend_guard.h"

#include <array>
#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/error.h"
#include "devmapper/dm_task.h"
#include "devmapper/suspend_guard_protocol.h"

namespace convoy {
namespace {

// Beside the daemon's program, as it is installed and built; other programs stand in bin/.
UniqueFd open_program() {
  std::error_code ignored;  // what can't be found can't be opened
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", ignored);
  std::filesystem::path program = self.parent_path() / kSuspendGuardProgram;
  if (!std::filesystem::exists(program, ignored))
    program = self.parent_path().parent_path() / "libexec/convoy" / kSuspendGuardProgram;
  UniqueFd file(::open(program.c_str(), O_PATH | O_CLOEXEC));
  if (!file)
    throw system_error(errno, fmt::format("can't open {}; install convoy anew", program.native()));
  return file;
}

}  // namespace

SuspendGuard::SuspendGuard(int lock_fd) : program_(open_program()), lock_fd_(lock_fd) {
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
  std::array<char*, 2> arguments = {const_cast<char*>(kSuspendGuardProgram), nullptr};
  const std::string program = fmt::format("/proc/self/fd/{}", program_.get());
  const int error =
      posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments.data(), environ);
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
  const SuspendGuardRequest wire = {to_dm_name(request.pool_name), to_dm_name(request.origin_name),
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

  SuspendGuardReply reply = {};
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
