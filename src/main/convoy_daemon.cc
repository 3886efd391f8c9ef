// convoy-daemon: what "convoy daemon" turns into. It takes the same command line, and is nobody's
// command.
#include <string_view>

#include "daemon/daemon.h"
#include "devmapper/suspend_guard.h"
#include "main/command_line.h"

int main(int argc, char** argv) {
  // The guard is this program too, started by the daemon.
  if (argc == 2 && std::string_view(argv[1]) == convoy::kSuspendGuardCommand)
    return convoy::run_suspend_guard();
  return convoy::run_command_line(argc, argv, &convoy::run_daemon);
}
