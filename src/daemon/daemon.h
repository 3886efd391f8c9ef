// The daemon: brings the pool up, recovers, serves its socket until it is told to stop.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "volumes/pool_setup.h"

namespace convoy {

struct DaemonOptions {
  std::filesystem::path root = "/var/lib/rancher/convoy";
  std::filesystem::path socket;
  std::string socket_group;  // may use the socket beside root; empty: the daemon's own
  std::string log_file;
  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
  std::vector<std::string> drivers;
  std::vector<std::string> driver_options;
  std::string
      mount_namespace;  // a path, or the number of an inherited descriptor; empty: the daemon's own
  std::chrono::seconds command_timeout = kDefaultCommandTimeout;
  std::filesystem::path s3_settings = "/etc/convoy/s3.conf";
  ForeignData foreign_data = ForeignData::kRefuse;
  bool ignore_docker_delete = false;
  bool create_on_docker_mount = false;
  bool ignore_config_file = false;
};

// Serves until SIGINT, SIGTERM or SIGHUP, then cancels all jobs and returns; volumes stay mounted
// and usable. Throws, having changed nothing, if it can't start. Call before other threads exist.
void run_daemon(const DaemonOptions& options);

// Makes the catalog of a pool that the root does not know, of root, socket, log and driver options.
// Returns what it found, as a JSON object by the names of volumes. Throws if that can't be
// done or a daemon listens on the socket; then there is no catalog. Call before other threads
// exist.
std::string run_pool_adoption(const DaemonOptions& options);

}  // namespace convoy
