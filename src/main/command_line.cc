#include "main/command_line.h"

#include <cstdio>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

namespace convoy {
namespace {

int fail(const Error& error) {
  print_json({{"Error", error.message()}});
  fmt::print(stderr, "convoy: {}\n", error.message());
  return exit_status(error.kind());
}

}  // namespace

int run_command_line(int argc, char** argv, const DaemonProgram& program) {
  CLI::App app(
      "Persistent volumes for Docker on a thin pool, with snapshots and incremental backups",
      "convoy");
  GlobalOptions global;
  app.set_version_flag("-v,--version", "convoy " CONVOY_VERSION);
  add_daemon_command(app, global, program);
  add_commands(app, global);
  add_adopt_command(*app.get_subcommand("pool"), global, program);
  refuse_empty_values(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& error) {  // a command has told all there is to tell
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail(Error(ErrorKind::kInvalidArgument, "{}; see 'convoy --help'", error.what()));
  } catch (const Error& error) {
    return fail(error);
  } catch (const std::exception& error) {
    return fail(Error(ErrorKind::kInternal, "{}", error.what()));
  }
}

}  // namespace convoy
