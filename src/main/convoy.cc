// convoy: daemon and command line in one program.
#include <cstdio>
#include <string_view>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "devmapper/suspend_guard.h"
#include "main/daemon_command.h"

namespace convoy {
namespace {

// Scripts read the JSON, people the line.
int fail(const Error& error) {
  print_json({{"Error", error.message()}});
  fmt::print(stderr, "convoy: {}\n", error.message());
  return exit_status(error.kind());
}

int run(int argc, char** argv) {
  CLI::App app(
      "Persistent volumes for Docker on a thin pool, with snapshots and incremental backups",
      "convoy");
  GlobalOptions global;
  app.set_version_flag("-v,--version", "convoy " CONVOY_VERSION);
  add_daemon_command(app, global);
  add_commands(app, global);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail(Error(ErrorKind::kInvalidArgument, "{}; see 'convoy --help'", error.what()));
  } catch (const Error& error) {
    return fail(error);
  } catch (const std::exception& error) {
    return fail(Error(ErrorKind::kInternal, "{}", error.what()));
  }
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  // The guard is this program too, started by the daemon; it has no options and is nobody's
  // command.
  if (argc == 2 && std::string_view(argv[1]) == convoy::kSuspendGuardCommand)
    return convoy::run_suspend_guard();
  return convoy::run(argc, argv);
}
