// The command line of both programs: one grammar, so that each option is known, checked and
// explained at one place.
#pragma once

#include "main/daemon_command.h"

namespace convoy {

// Runs what the arguments say and returns the exit status. Errors are printed: as JSON on standard
// output for scripts, as a line on standard error for people. What is the daemon's program,
// `program` does.
int run_command_line(int argc, char** argv, const DaemonProgram& program);

}  // namespace convoy
