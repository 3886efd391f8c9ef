// The command "convoy daemon".
#pragma once

namespace CLI {
class App;
}

namespace convoy {

struct GlobalOptions;

// Adds the command, which runs, and throws its errors, while `app` parses.
void add_daemon_command(CLI::App& app, const GlobalOptions& global);

}  // namespace convoy
