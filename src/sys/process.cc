#include "sys/process.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "sys/unique_fd.h"

namespace convoy {
namespace {

constexpr std::size_t kMaxOutput = 64UL * 1024;

// A service's PATH may lack the sbin directories, where mkfs is.
std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* const path = std::getenv("PATH");
  std::string directories = path == nullptr ? "" : path;
  directories += ":/usr/sbin:/usr/bin:/sbin:/bin";
  for (std::size_t begin = 0; begin < directories.size();) {
    const std::size_t end = std::min(directories.find(':', begin), directories.size());
    const std::string candidate = directories.substr(begin, end - begin) + "/" + name;
    if (candidate.size() > name.size() + 1 && ::access(candidate.c_str(), X_OK) == 0)
      return candidate;
    begin = end + 1;
  }
  throw Error(ErrorKind::kNotFound, "the program {} is not installed", name);
}

struct Child {
  pid_t pid;
  UniqueFd output;
};

Child spawn(const std::vector<std::string>& arguments) {
  // It ends with the thread that waits for it, and so with us: an mkfs that goes on when the daemon
  // was killed would write to a device that the next one wants to remove.
  std::vector<std::string> command = {find_program("setpriv"), "--pdeathsig", "KILL", "--",
                                      find_program(arguments[0])};
  command.insert(command.end(), arguments.begin() + 1, arguments.end());

  std::array<int, 2> ends = {};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDERR_FILENO);

  // A group of its own, so that a timeout reaches the program's children, and the terminal's Ctrl-C
  // doesn't; and the default signals, since the daemon blocks those that it waits for.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&attributes, 0);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t ignored;
  sigemptyset(&ignored);
  sigaddset(&ignored, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &ignored);

  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (std::string& argument : command) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) throw system_error(error, fmt::format("can't start {}", command[0]));
  return {pid, std::move(read_end)};
}

// How soon a request to stop is noticed.
constexpr std::chrono::milliseconds kStopStep{100};

// Collects output until the child has closed it. False if the deadline, or a stop, came first.
bool collect_output(int fd, std::chrono::steady_clock::time_point deadline,
                    const std::stop_token& stop, std::string& output) {
  while (!stop.stop_requested()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd waiting = {fd, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::min(left, kStopStep).count()));
    if (ready <= 0) continue;
    std::array<char, 4096> buffer;
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count == 0) return true;
    if (count < 0) continue;
    output.append(buffer.data(), static_cast<std::size_t>(count));
    if (output.size() > kMaxOutput) output.erase(0, output.size() - kMaxOutput);
  }
  return false;
}

// The status of the child; nothing if it had to be killed at the deadline.
std::optional<int> wait_for(pid_t pid, std::chrono::steady_clock::time_point deadline) {
  int status = 0;
  // It has closed its output, so it ends in a moment, as a rule.
  pid_t ended = 0;
  while ((ended = ::waitpid(pid, &status, WNOHANG)) == 0) {
    if (std::chrono::steady_clock::now() >= deadline) {
      ::kill(-pid, SIGKILL);
      ::waitpid(pid, &status, 0);
      return std::nullopt;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  if (ended < 0) throw system_error(errno, "waitpid");
  return status;
}

}  // namespace

std::string run_command(const std::vector<std::string>& arguments,
                        std::chrono::milliseconds timeout, const std::stop_token& stop) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const Child child = spawn(arguments);
  std::string output;
  const bool closed = collect_output(child.output.get(), deadline, stop, output);
  const std::optional<int> status =
      wait_for(child.pid, closed ? deadline : std::chrono::steady_clock::time_point{});

  if (!status && stop.stop_requested())
    throw Error(ErrorKind::kCancelled, "{} was stopped", arguments[0]);
  if (!status) {
    throw Error(ErrorKind::kUnavailable, "{} did not end within {} s and was killed", arguments[0],
                std::chrono::duration_cast<std::chrono::seconds>(timeout).count());
  }
  crash_point("command");
  while (!output.empty() && output.back() == '\n') output.pop_back();
  if (*status != 0) {
    const std::string how = WIFEXITED(*status)
                                ? fmt::format("ended with status {}", WEXITSTATUS(*status))
                                : fmt::format("was killed by signal {}", WTERMSIG(*status));
    throw Error(ErrorKind::kIo, "{} {}: {}", arguments[0], how, output);
  }
  return output;
}

}  // namespace convoy
