// The crash points of a daemon that ends itself at one of them. The file /run/convoy-crash, while
// it is there, says at which: the number of points until then. What is passed is written down, line
// by line, in /run/convoy-crash.passed. If it says "stop " and the name of a point, the process
// only stops at the first one of that name, until it is told to go on.
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "base/crash_point.h"
#include "sys/unique_fd.h"

namespace convoy {

void crash_point(const char* name) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  // Who removes it while we are here finds it removed: it is written to, not made.
  const UniqueFd file(::open("/run/convoy-crash", O_RDWR | O_CLOEXEC));
  if (!file) return;
  std::string text(64, '\0');
  const ssize_t length = ::pread(file.get(), text.data(), text.size(), 0);
  if (length <= 0) return;
  text.resize(static_cast<std::size_t>(length));
  if (text.starts_with("stop ")) {
    if (text != std::string("stop ") + name) return;
    (void)!::ftruncate(file.get(), 0);
    ::raise(SIGSTOP);  // this thread first
    return;
  }
  const long left = std::strtol(text.c_str(), nullptr, 10) - 1;
  std::ofstream("/run/convoy-crash.passed", std::ios::app) << name << std::endl;
  if (left == 0) ::kill(::getpid(), SIGKILL);
  text = std::to_string(left) + "\n         ";
  (void)!::pwrite(file.get(), text.data(), text.size(), 0);
}

}  // namespace convoy
