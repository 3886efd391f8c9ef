// The commands that talk to the daemon. Each takes its options, as the command line gave them, and
// prints on standard output what Convoy's users expect there; anything for people only goes to
// standard error. Errors are thrown.
#pragma once

#include <string>
#include <vector>

#include "cli/client.h"

namespace convoy {

struct CreateOptions {
  std::string name;
  std::string driver;
  std::string size;
  std::string backup;
  std::string s3_endpoint;
  std::string filesystem, mkfs_options, mount_options;
  // For other drivers of Convoy.
  std::string id, type, iops;
  bool vm = false;
  bool allow_damaged = false;
  bool verbose = false;
};
void run_create(Client& client, const CreateOptions& options);

// A destination, or a backup in one.
struct UrlArguments {
  std::string url;
  std::string s3_endpoint;
};

void run_restore(Client& client, const UrlArguments& backup, const std::string& volume);

// Goes on after a failure; then throws the last one.
void run_delete(Client& client, const std::vector<std::string>& volumes);
void run_mount(Client& client, const std::string& volume, const std::string& mountpoint);
enum class Force { kNo, kYes };
void run_umount(Client& client, const std::string& volume, Force force);
void run_trim(Client& client, const std::string& volume);

enum class ListDetail { kAll, kDriverInfo };
void run_list(Client& client, ListDetail detail);
void run_inspect(Client& client, const std::string& volume);
void run_info(Client& client);
void run_pool_grow(Client& client);

void run_snapshot_create(Client& client, const std::string& volume, const std::string& name);
void run_snapshot_delete(Client& client, const std::vector<std::string>& snapshots);
void run_snapshot_inspect(Client& client, const std::string& snapshot);

struct BackupCreateOptions {
  std::string snapshot;
  UrlArguments destination;
  std::string compression;
  bool verbose = false;
};
void run_backup_create(Client& client, const BackupCreateOptions& options);
enum class ListForm { kJson, kTable };
void run_backup_list(Client& client, const UrlArguments& destination,
                     const std::string& volume_name, ListForm form);
void run_backup_inspect(Client& client, const UrlArguments& backup);
void run_backup_delete(Client& client, const UrlArguments& backup);
// Prints what is broken. Returns false if anything is.
enum class VerifyDepth { kQuick, kFull };
bool run_backup_verify(Client& client, const UrlArguments& address, VerifyDepth depth);

// Prints what was freed, or would be. Returns false if there was a volume of which nothing could
// be.
enum class GcMode { kRun, kDryRun };
bool run_backup_gc(Client& client, const UrlArguments& destination, GcMode mode);
void run_backup_unlock(Client& client, const UrlArguments& destination);

void run_jobs(Client& client, ListForm form);
void run_job_cancel(Client& client, const std::string& id);

// Prints JSON as all commands do: indented by tabs.
void print_json(const Json& json);

}  // namespace convoy
