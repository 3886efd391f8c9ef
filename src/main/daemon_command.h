// The command "convoy daemon".
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace convoy {

struct DaemonOptions;
struct GlobalOptions;

using RunDaemon = std::function<void(const DaemonOptions& options)>;

// Adds the command, which calls `run`, and throws its errors, while `app` parses.
void add_daemon_command(CLI::App& app, const GlobalOptions& global, RunDaemon run);

}  // namespace convoy
