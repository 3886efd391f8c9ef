#include "daemon/daemon.h"

#include <csignal>
#include <optional>

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "catalog/catalog_copy.h"
#include "daemon/api.h"
#include "daemon/backups.h"
#include "daemon/docker_plugin.h"
#include "daemon/http_server.h"
#include "daemon/jobs.h"
#include "daemon/request_fields.h"
#include "daemon/views.h"
#include "devmapper/dm_task.h"
#include "sys/file.h"
#include "sys/lock_file.h"
#include "volumes/adoption.h"
#include "volumes/convoy_root.h"
#include "volumes/pool_watch.h"

namespace convoy {
namespace {

void check_drivers(const std::vector<std::string>& drivers) {
  for (const std::string& driver : drivers) {
    if (driver == kDriverName) continue;
    throw Error(ErrorKind::kInvalidArgument, "--drivers {}: there is only the driver {}", driver,
                kDriverName);
  }
}

void check_root(const std::filesystem::path& root) {
  if (root.is_absolute()) return;
  throw Error(ErrorKind::kInvalidArgument, "--root {}: give an absolute path", root.native());
}

// --mnt-ns takes a path, or, as Convoy did, the number of a descriptor that the daemon was started
// with.
std::filesystem::path namespace_path(const std::string& option) {
  const bool number =
      !option.empty() && option.find_first_not_of("0123456789") == std::string::npos;
  return number ? "/proc/self/fd/" + option : option;
}

// In every thread from now on; the first thread waits for them.
sigset_t block_stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A client that has left is an error of its answer, not the daemon's end.
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  // Whoever started us may have left it ignored, and then nobody learns how a child ended.
  static_cast<void>(std::signal(SIGCHLD, SIG_DFL));
  return signals;
}

LockFile lock_root(const std::filesystem::path& root) {
  std::optional<LockFile> lock = LockFile::try_lock(root / "lock");
  if (!lock) {
    throw Error(ErrorKind::kBusy,
                "another daemon uses the root {}; stop it, or give this one another --root",
                root.native());
  }
  return std::move(*lock);
}

// What the guard of a daemon that was killed still does must be done before the pool is looked at.
LockFile lock_guard_out(const std::filesystem::path& root) {
  std::optional<LockFile> lock = LockFile::lock(root / "guard.lock", kGuardTimeout);
  if (!lock) {
    throw Error(ErrorKind::kBusy,
                "the suspend guard of an earlier daemon has been snapshotting a volume for {} s: "
                "its disk may hang",
                kGuardTimeout.count());
  }
  return std::move(*lock);
}

GeneralSettings general_settings(const DaemonOptions& options) {
  GeneralSettings settings;
  settings.root = options.root;
  settings.mount_namespace = options.mount_namespace;
  settings.ignore_docker_delete = options.ignore_docker_delete;
  settings.create_on_docker_mount = options.create_on_docker_mount;
  settings.command_timeout = options.command_timeout;
  return settings;
}

// Convoy kept these options in a file, so its users don't give them any more. One of them keeps
// volumes from being deleted.
void check_convoy_settings(const DaemonOptions& options) {
  const ConvoySettings settings = read_convoy_settings(options.root);
  const auto require = [&](bool wanted, bool given, const char* field, const char* option) {
    if (!wanted || given) return;
    throw Error(ErrorKind::kInvalidArgument,
                "{}/convoy.cfg says {}, which is an option now: start with {}, or change that file",
                options.root.native(), field, option);
  };
  require(settings.ignore_docker_delete, options.ignore_docker_delete, "IgnoreDockerDelete",
          "--ignore-docker-delete");
  require(settings.create_on_docker_mount, options.create_on_docker_mount, "CreateOnDockerMount",
          "--create-on-docker-mount");
  require(!settings.mount_namespace.empty(), !options.mount_namespace.empty(), "MountNamespaceFD",
          "--mnt-ns");
}

}  // namespace

void run_daemon(const DaemonOptions& options) {
  check_drivers(options.drivers);
  check_root(options.root);
  const PoolOptions pool_options = parse_pool_options(options.driver_options);
  MountNamespace mounts(namespace_path(options.mount_namespace));
  redirect_dm_log();

  // What is wrong with a first pool's options is said before anything is made.
  if (has_convoy_pool(options.root)) check_convoy_settings(options);
  if (!has_catalog(options.root)) plan_first_pool(options.root, pool_options, options.foreign_data);

  const sigset_t stop_signals = block_stop_signals();
  start_log(options.log_file, options.log_format, options.log_level);
  if (options.ignore_config_file)
    spdlog::info("--ignore-config-file: there is no configuration file to ignore");

  // Clients that come now wait until they are served.
  const ListeningSocket socket(options.socket, options.socket_group);
  make_directories(options.root);
  const LockFile lock = lock_root(options.root);
  const LockFile guard_lock = lock_guard_out(options.root);
  restore_lost_catalog(options.root, pool_options, guard_lock.fd());
  Catalog catalog(catalog_path(options.root));
  const auto pool =
      bring_up_pool(catalog, options.root, pool_options, options.foreign_data, guard_lock.fd());
  Volumes volumes(catalog, *pool, std::move(mounts),
                  {options.root / kDriverName / "mounts", options.command_timeout});
  volumes.recover();
  const CatalogCopy catalog_copy(catalog_path(options.root));
  const PoolWatch watch(volumes);

  Jobs jobs;
  Backups backups(catalog, volumes, {.settings_file = options.s3_settings});
  Creations creations(volumes, backups, jobs);
  const Api api(general_settings(options), volumes, backups, creations, jobs);
  const DockerPlugin plugin(general_settings(options), volumes, creations);
  const HttpServer server(socket, [&](const HttpRequest& request) {
    return plugin.serves(request.path) ? plugin.handle(request) : api.handle(request);
  });
  spdlog::info("convoy {} serves {} with pool {}", CONVOY_VERSION, options.socket.native(),
               volumes.pool().name);

  int signal = 0;
  sigwait(&stop_signals, &signal);
  spdlog::info("stopping on {}", sigabbrev_np(signal));
  // Before the server, which waits for the streams that show the jobs, and for all other answers.
  backups.stop();
  jobs.stop();
}

std::string run_pool_adoption(const DaemonOptions& options) {
  check_root(options.root);
  const PoolOptions pool_options = parse_pool_options(options.driver_options);
  redirect_dm_log();
  if (has_catalog(options.root)) {
    throw Error(ErrorKind::kAlreadyExists,
                "the root {0} has a catalog: start the daemon; or, if that says that catalog and "
                "copy won't do, move {0}/catalog.db and {0}/catalog.db.copy away first",
                options.root.native());
  }
  if (has_convoy_pool(options.root)) {
    throw Error(ErrorKind::kInvalidArgument,
                "the root {} is Rancher Convoy's, whose pool the daemon takes over when it starts",
                options.root.native());
  }
  plan_adoption(pool_options);

  start_log(options.log_file, options.log_format, options.log_level);
  const ListeningSocket socket(options.socket, options.socket_group);  // no daemon is at work
  make_directories(options.root);
  const LockFile lock = lock_root(options.root);
  const LockFile guard_lock = lock_guard_out(options.root);
  adopt_pool(options.root, pool_options, guard_lock.fd());

  Catalog catalog(catalog_path(options.root));
  nlohmann::ordered_json adopted = nlohmann::ordered_json::object();
  for (const VolumeRow& volume : catalog.volumes()) {
    nlohmann::ordered_json& entry = adopted[volume.name];
    entry = {{"UUID", volume.uuid.to_string()},
             {"Size", std::to_string(volume.size)},
             {"Filesystem", volume.filesystem},
             {"Snapshots", nlohmann::ordered_json::array()}};
    for (const SnapshotRow& snapshot : catalog.snapshots_of(volume.uuid))
      entry["Snapshots"].push_back(snapshot.name);
  }
  return to_text(adopted);
}

}  // namespace convoy
