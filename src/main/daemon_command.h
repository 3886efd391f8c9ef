// The commands that are the daemon's program.
#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace convoy {

struct DaemonOptions;
struct GlobalOptions;

// What a daemon's program does itself.
struct DaemonProgram {
  std::function<void(const DaemonOptions& options)> run;
  // Returns the JSON to print.
  std::function<std::string(const DaemonOptions& options)> adopt_pool;
};

// Add "convoy daemon", and "adopt" to "convoy pool". They call `program`, and throw its errors,
// while `app` parses. References must outlive `app`.
void add_daemon_command(CLI::App& app, const GlobalOptions& global, const DaemonProgram& program);
void add_adopt_command(CLI::App& pool, const GlobalOptions& global, const DaemonProgram& program);

}  // namespace convoy
