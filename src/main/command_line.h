// The command line of both programs: one grammar, so that each option is known, checked and
// explained at one place.
#pragma once

#include "main/daemon_command.h"

namespace convoy {

// Runs what the arguments say and returns the exit status. Errors are printed: as JSON on standard
// output for scripts, as a line on standard error for people. "convoy daemon" calls `run_daemon`.
int run_command_line(int argc, char** argv, const RunDaemon& run_daemon);

}  // namespace convoy
