// convoy-daemon: what "convoy daemon" turns into. It takes the same command line, and is nobody's
// command.
#include "daemon/daemon.h"
#include "main/command_line.h"

int main(int argc, char** argv) {
  return convoy::run_command_line(
      argc, argv, {.run = &convoy::run_daemon, .adopt_pool = &convoy::run_pool_adoption});
}
