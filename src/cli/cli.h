// The grammar of the command line: every command and option at one place.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace convoy {

struct GlobalOptions {
  std::string socket = "/var/run/convoy/convoy.sock";
  bool debug = false;
  bool verbose = false;
};

// Makes `command`, which only groups others, fail with their names if none of them is given.
// (CLI11's own check comes before its look at unknown words, and so hides a mistyped one.)
void require_command(CLI::App& command);

// An option that is left out means the default; one that is given empty is a script's variable that
// was not set, and the default would be a surprise: refused for all commands that `app` has by now.
void refuse_empty_values(CLI::App& app);

// Adds the global options and the commands that talk to the daemon. A command runs, and throws its
// errors, while `app` parses. `options` must outlive `app`.
void add_commands(CLI::App& app, GlobalOptions& options);

}  // namespace convoy
