#include "main/daemon_command.h"

#include <charconv>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "daemon/daemon.h"

namespace convoy {
namespace {

// "90", "90s", "2m" or "1h".
std::chrono::seconds parse_duration(const std::string& text) {
  unsigned number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  constexpr unsigned kMost = 1'000'000;
  if (error == std::errc{} && number > 0 && number <= kMost) {
    if (unit.empty() || unit == "s") return std::chrono::seconds(number);
    if (unit == "m") return std::chrono::minutes(number);
    if (unit == "h") return std::chrono::hours(number);
  }
  throw Error(ErrorKind::kInvalidArgument,
              "--cmd-timeout {}: give seconds, or a number with s, m or h, such as 2m", text);
}

// What both commands have.
void add_common_options(CLI::App& command, DaemonOptions& options, std::string& log_format) {
  command.fallthrough();
  command.add_option("--root", options.root, "Directory of the catalog and the mount points")
      ->capture_default_str();
  command.add_option("--log", options.log_file,
                     "Append the log to this file, not to standard error");
  command.add_option("--log-format", log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  command
      .add_option("--driver-opts", options.driver_options,
                  "KEY=VALUE, once for each of: dm.datadev and dm.metadatadev (block devices, "
                  "required the first time), "
                  "dm.thinpoolname (convoy-pool), dm.thinpoolblocksize (512-byte sectors, 4096), "
                  "dm.defaultvolumesize (100G), dm.fs (ext4, or xfs), dm.lowwatermark (percent, "
                  "80), dm.whenfull (error, or queue)")
      ->allow_extra_args(false);
}

void add_global_options(DaemonOptions& options, const GlobalOptions& global,
                        const std::string& log_format) {
  options.socket = global.socket;
  if (global.debug) options.log_level = LogLevel::kDebug;
  if (log_format == "json") options.log_format = LogFormat::kJson;
}

}  // namespace

void add_daemon_command(CLI::App& app, const GlobalOptions& global, const DaemonProgram& program) {
  CLI::App* const daemon = app.add_subcommand("daemon", "Serve volumes, in the foreground");
  const auto options = std::make_shared<DaemonOptions>();
  const auto timeout = std::make_shared<std::string>();
  const auto log_format = std::make_shared<std::string>("text");
  const auto force = std::make_shared<bool>(false);
  add_common_options(*daemon, *options, *log_format);
  daemon->add_option("--socket-group", options->socket_group,
                     "This group may use the socket too, which is as much as being root");
  daemon->add_option("--drivers", options->drivers, "devicemapper, the only driver")
      ->allow_extra_args(false);
  daemon
      ->add_option("--s3-settings", options->s3_settings,
                   "File of what destinations in S3 need besides their URLs")
      ->capture_default_str();
  daemon->add_option("--mnt-ns", options->mount_namespace,
                     "Mount in this mount namespace, such as /proc/1/ns/mnt");
  daemon->add_option("--cmd-timeout", *timeout,
                     "End mkfs and other programs after this time (120s)");
  daemon->add_flag("--ignore-docker-delete", options->ignore_docker_delete,
                   "Keep volumes that Docker deletes");
  daemon->add_flag("--create-on-docker-mount", options->create_on_docker_mount,
                   "Make volumes that Docker mounts");
  daemon->add_flag("--ignore-config-file", options->ignore_config_file,
                   "Accepted; there is no configuration file");
  daemon->add_flag("--force-new-pool", *force,
                   "Make the new pool although the devices hold other data, which is lost");
  daemon->callback([options, timeout, log_format, force, &global, &program] {
    add_global_options(*options, global, *log_format);
    if (!timeout->empty()) options->command_timeout = parse_duration(*timeout);
    if (*force) options->foreign_data = ForeignData::kOverwrite;
    program.run(*options);
  });
}

void add_adopt_command(CLI::App& pool, const GlobalOptions& global, const DaemonProgram& program) {
  CLI::App* const adopt = pool.add_subcommand(
      "adopt", "Build the catalog of a pool whose root is lost, from the pool alone");
  const auto options = std::make_shared<DaemonOptions>();
  const auto log_format = std::make_shared<std::string>("text");
  add_common_options(*adopt, *options, *log_format);
  adopt->callback([options, log_format, &global, &program] {
    add_global_options(*options, global, *log_format);
    print_json(Json::parse(program.adopt_pool(*options)));
  });
}

}  // namespace convoy
