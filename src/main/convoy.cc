// convoy: the command line. The daemon is a program of its own, which "convoy daemon" and "convoy
// pool adopt" turn into: the forty shared libraries that only a daemon needs tripled the time that
// each command takes to start.
#include <cerrno>
#include <filesystem>

#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "main/command_line.h"

namespace convoy {
namespace {

// Returns by an exception only.
[[noreturn]] void become_daemon(char** arguments) {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::filesystem::path daemon =
      self.parent_path().parent_path() / "libexec/convoy/convoy-daemon";
  ::execv(daemon.c_str(), arguments);
  throw system_error(errno, fmt::format("can't start {}; install convoy anew", daemon.native()));
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  return convoy::run_command_line(
      argc, argv,
      {.run = [argv](const convoy::DaemonOptions&) { convoy::become_daemon(argv); },
       .adopt_pool = [argv](const convoy::DaemonOptions&) -> std::string {
         convoy::become_daemon(argv);
       }});
}
