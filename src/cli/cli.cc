#include "cli/cli.h"

#include <memory>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/commands.h"

namespace convoy {
namespace {

CLI::App* command(CLI::App& parent, const char* name, const char* description) {
  CLI::App* const added = parent.add_subcommand(name, description);
  added->fallthrough();
  return added;
}

void add_s3_endpoint(CLI::App& command, std::string& endpoint) {
  command.add_option("--s3-endpoint", endpoint,
                     "Address of an S3 server other than Amazon's, such as https://host:9000");
}

void add_create(CLI::App& app, const GlobalOptions& global) {
  CLI::App* const create = command(app, "create", "Create a volume, empty or from a backup");
  const auto options = std::make_shared<CreateOptions>();
  create->add_option("NAME", options->name, "Name of the volume; one is made up if it is left out");
  create->add_option("--driver", options->driver, "devicemapper, the only driver");
  create->add_option("--size", options->size, "Size in bytes, or with K, M, G or T, such as 20G");
  create->add_option("--backup", options->backup, "Fill it from the backup at this URL");
  create->add_flag(
      "--allow-damaged", options->allow_damaged,
      "With --backup: make the volume though parts of the backup are lost; tells which");
  add_s3_endpoint(*create, options->s3_endpoint);
  create->add_option("--fs", options->filesystem, "ext4 or xfs, if not the pool's default");
  create->add_option("--mkfs-options", options->mkfs_options, "More options for mkfs, in quotes");
  create->add_option("--mount-options", options->mount_options,
                     "What it is always mounted with, such as noatime,nodev");
  create->add_option("--id", options->id, "Ignored by this driver");
  create->add_option("--type", options->type, "Ignored by this driver");
  create->add_option("--iops", options->iops, "Ignored by this driver");
  create->add_flag("--vm", options->vm, "Ignored by this driver");
  create->callback([options, &global] {
    options->verbose = global.verbose;
    Client client(global.socket);
    run_create(client, *options);
  });
}

struct RestoreArguments {
  UrlArguments backup;
  std::string volume;
};

struct VolumeArguments {
  std::vector<std::string> names;
  std::string name;
  std::string mountpoint;
  bool flag = false;
};

void add_volume_commands(CLI::App& app, const GlobalOptions& global) {
  add_create(app, global);

  CLI::App* const remove = command(app, "delete", "Delete volumes with their snapshots");
  const auto removed = std::make_shared<VolumeArguments>();
  remove->add_option("VOLUME", removed->names, "Names or UUIDs")->required();
  remove->add_flag("-r,--reference", removed->flag, "Ignored by this driver");
  remove->callback([removed, &global] {
    Client client(global.socket);
    run_delete(client, removed->names);
  });

  CLI::App* const mount = command(app, "mount", "Mount a volume");
  const auto mounted = std::make_shared<VolumeArguments>();
  mount->add_option("VOLUME", mounted->name, "Name or UUID")->required();
  mount->add_option("--mountpoint", mounted->mountpoint, "Directory to mount it at");
  mount->callback([mounted, &global] {
    Client client(global.socket);
    run_mount(client, mounted->name, mounted->mountpoint);
  });

  CLI::App* const unmount = command(app, "umount", "Unmount a volume");
  const auto unmounted = std::make_shared<VolumeArguments>();
  unmount->add_option("VOLUME", unmounted->name, "Name or UUID")->required();
  unmount->add_flag("--force", unmounted->flag, "Also end the uses of containers");
  unmount->callback([unmounted, &global] {
    Client client(global.socket);
    run_umount(client, unmounted->name, unmounted->flag ? Force::kYes : Force::kNo);
  });

  CLI::App* const restore =
      command(app, "restore", "Make an unmounted volume what it was in a backup");
  const auto restored = std::make_shared<RestoreArguments>();
  restore->add_option("URL", restored->backup.url, "The backup's URL, in quotes")->required();
  add_s3_endpoint(*restore, restored->backup.s3_endpoint);
  restore->add_option("--into", restored->volume, "Name or UUID of the volume")->required();
  restore->callback([restored, &global] {
    Client client(global.socket);
    run_restore(client, restored->backup, restored->volume);
  });

  CLI::App* const trim =
      command(app, "trim", "Give what a mounted volume's file system doesn't use back to the pool");
  const auto trimmed = std::make_shared<VolumeArguments>();
  trim->add_option("VOLUME", trimmed->name, "Name or UUID")->required();
  trim->callback([trimmed, &global] {
    Client client(global.socket);
    run_trim(client, trimmed->name);
  });

  CLI::App* const list = command(app, "list", "Show all volumes");
  const auto listed = std::make_shared<VolumeArguments>();
  list->add_flag("--driver", listed->flag, "Show only what the driver knows of each");
  list->callback([listed, &global] {
    Client client(global.socket);
    run_list(client, listed->flag ? ListDetail::kDriverInfo : ListDetail::kAll);
  });

  CLI::App* const inspect = command(app, "inspect", "Show a volume");
  const auto inspected = std::make_shared<VolumeArguments>();
  inspect->add_option("VOLUME", inspected->name, "Name or UUID")->required();
  inspect->callback([inspected, &global] {
    Client client(global.socket);
    run_inspect(client, inspected->name);
  });

  command(app, "info", "Show the daemon's settings and how full the pool is")->callback([&global] {
    Client client(global.socket);
    run_info(client);
  });
}

void add_pool_commands(CLI::App& app, const GlobalOptions& global) {
  CLI::App* const pool = command(app, "pool", "Care for the thin pool");
  require_command(*pool);
  command(*pool, "grow", "Use the whole of its devices, which have become larger")
      ->callback([&global] {
        Client client(global.socket);
        run_pool_grow(client);
      });
}

struct SnapshotArguments {
  std::string volume;
  std::string name;
  std::vector<std::string> names;
};

void add_snapshot_commands(CLI::App& app, const GlobalOptions& global) {
  CLI::App* const snapshot = command(app, "snapshot", "Create, delete and show snapshots");
  require_command(*snapshot);

  CLI::App* const create =
      command(*snapshot, "create", "Snapshot a volume at this moment, mounted or not");
  const auto created = std::make_shared<SnapshotArguments>();
  create->add_option("VOLUME", created->volume, "Name or UUID")->required();
  create->add_option("--name", created->name,
                     "Name of the snapshot; one is made up if it is left out");
  create->callback([created, &global] {
    Client client(global.socket);
    run_snapshot_create(client, created->volume, created->name);
  });

  CLI::App* const remove = command(*snapshot, "delete", "Delete snapshots");
  const auto removed = std::make_shared<SnapshotArguments>();
  remove->add_option("SNAPSHOT", removed->names, "Names or UUIDs")->required();
  remove->callback([removed, &global] {
    Client client(global.socket);
    run_snapshot_delete(client, removed->names);
  });

  CLI::App* const inspect = command(*snapshot, "inspect", "Show a snapshot");
  const auto inspected = std::make_shared<SnapshotArguments>();
  inspect->add_option("SNAPSHOT", inspected->name, "Name or UUID")->required();
  inspect->callback([inspected, &global] {
    Client client(global.socket);
    run_snapshot_inspect(client, inspected->name);
  });
}

constexpr const char* kDestinationHelp =
    "Destination, such as vfs:///mnt/backups/ or s3://bucket@eu-central-1/backups/";

struct BackupArguments {
  UrlArguments address;
  std::string volume_name;
  bool quick = false;
  bool dry_run = false;
  std::string form;
};

void add_form_option(CLI::App& command, std::string& form) {
  command.add_option("-o,--output", form, "json, or a table for people")
      ->check(CLI::IsMember({"json", "table"}))
      ->option_text("FORM [json]");
}

ListForm list_form(const std::string& form) {
  return form == "table" ? ListForm::kTable : ListForm::kJson;
}

// Those that are about a destination as a whole.
void add_store_commands(CLI::App& backup, const std::shared_ptr<std::string>& endpoint,
                        const GlobalOptions& global) {
  CLI::App* const gc =
      command(backup, "gc", "Free what interrupted backups have left, and what is half needed");
  const auto collected = std::make_shared<BackupArguments>();
  gc->add_option("DEST", collected->address.url, kDestinationHelp)->required();
  gc->add_flag("--dry-run", collected->dry_run, "Only tell what would be freed");
  gc->callback([collected, endpoint, &global] {
    collected->address.s3_endpoint = *endpoint;
    Client client(global.socket);
    const GcMode mode = collected->dry_run ? GcMode::kDryRun : GcMode::kRun;
    if (!run_backup_gc(client, collected->address, mode)) throw CLI::RuntimeError(1);
  });

  CLI::App* const unlock =
      command(backup, "unlock", "Take the leases of backups that are being made: they fail");
  const auto unlocked = std::make_shared<BackupArguments>();
  unlock->add_option("DEST", unlocked->address.url, kDestinationHelp)->required();
  unlock->callback([unlocked, endpoint, &global] {
    unlocked->address.s3_endpoint = *endpoint;
    Client client(global.socket);
    run_backup_unlock(client, unlocked->address);
  });
}

void add_backup_commands(CLI::App& app, const GlobalOptions& global) {
  CLI::App* const backup = command(app, "backup", "Create, list, show, verify and delete backups");
  require_command(*backup);
  // Of all commands, and before or behind their names.
  const auto endpoint = std::make_shared<std::string>();
  add_s3_endpoint(*backup, *endpoint);

  CLI::App* const create =
      command(*backup, "create", "Back up a snapshot: what changed since the last backup there");
  const auto created = std::make_shared<BackupCreateOptions>();
  create->add_option("SNAPSHOT", created->snapshot, "Name or UUID")->required();
  create->add_option("--dest", created->destination.url, kDestinationHelp)->required();
  create->add_option("--compression", created->compression,
                     "none, zstd (the default, of level 1), or zstd:1 to zstd:19");
  create->callback([created, endpoint, &global] {
    created->verbose = global.verbose;
    created->destination.s3_endpoint = *endpoint;
    Client client(global.socket);
    run_backup_create(client, *created);
  });

  CLI::App* const list = command(*backup, "list", "Show the backups in a destination");
  const auto listed = std::make_shared<BackupArguments>();
  list->add_option("DEST", listed->address.url, kDestinationHelp)->required();
  list->add_option("--volume-name", listed->volume_name, "Show only those of volumes of this name");
  add_form_option(*list, listed->form);
  list->callback([listed, endpoint, &global] {
    listed->address.s3_endpoint = *endpoint;
    Client client(global.socket);
    run_backup_list(client, listed->address, listed->volume_name, list_form(listed->form));
  });

  CLI::App* const inspect = command(*backup, "inspect", "Show a backup");
  const auto inspected = std::make_shared<BackupArguments>();
  inspect->add_option("URL", inspected->address.url, "The backup's URL, in quotes")->required();
  inspect->callback([inspected, endpoint, &global] {
    inspected->address.s3_endpoint = *endpoint;
    Client client(global.socket);
    run_backup_inspect(client, inspected->address);
  });

  CLI::App* const remove =
      command(*backup, "delete", "Delete a backup, and what no other backup needs");
  const auto removed = std::make_shared<BackupArguments>();
  remove->add_option("URL", removed->address.url, "The backup's URL, in quotes")->required();
  remove->callback([removed, endpoint, &global] {
    removed->address.s3_endpoint = *endpoint;
    Client client(global.socket);
    run_backup_delete(client, removed->address);
  });

  CLI::App* const verify =
      command(*backup, "verify", "Look whether backups can be restored; status 1 if not");
  const auto verified = std::make_shared<BackupArguments>();
  verify
      ->add_option("URL", verified->address.url,
                   "A backup's URL, in quotes, or a destination: all in it")
      ->required();
  verify->add_flag("--quick", verified->quick,
                   "Read no chunks: only look whether they are where they should be");
  verify->callback([verified, endpoint, &global] {
    verified->address.s3_endpoint = *endpoint;
    Client client(global.socket);
    const VerifyDepth depth = verified->quick ? VerifyDepth::kQuick : VerifyDepth::kFull;
    if (!run_backup_verify(client, verified->address, depth)) throw CLI::RuntimeError(1);
  });
  add_store_commands(*backup, endpoint, global);
}

struct JobArguments {
  std::string id;
  std::string form;
};

void add_job_commands(CLI::App& app, const GlobalOptions& global) {
  CLI::App* const jobs = command(app, "jobs", "Show what the daemon works on, or cancel it");
  const auto arguments = std::make_shared<JobArguments>();
  add_form_option(*jobs, arguments->form);
  CLI::App* const cancel = command(*jobs, "cancel", "Cancel a job");
  cancel->add_option("ID", arguments->id, "The job's number")->required();
  cancel->callback([arguments, &global] {
    Client client(global.socket);
    run_job_cancel(client, arguments->id);
  });
  jobs->callback([jobs, cancel, arguments, &global] {
    if (jobs->got_subcommand(cancel)) return;
    Client client(global.socket);
    run_jobs(client, list_form(arguments->form));
  });
}

}  // namespace

void require_command(CLI::App& command) {
  command.require_subcommand(0, 1);
  command.callback([&command] {
    if (!command.get_subcommands().empty()) return;
    std::string names;
    for (const CLI::App* const known : command.get_subcommands({}))
      names += " " + known->get_name();
    throw Error(ErrorKind::kInvalidArgument, "give a command, one of:{}; see 'convoy --help'",
                names);
  });
}

void refuse_empty_values(CLI::App& app) {
  for (CLI::Option* const option : app.get_options()) {
    if (option->get_expected_max() == 0) continue;  // a flag
    option->check([](const std::string& value) {
      return value.empty() ? std::string("the value is empty") : std::string();
    });
  }
  for (CLI::App* const subcommand : app.get_subcommands({})) refuse_empty_values(*subcommand);
}

void add_commands(CLI::App& app, GlobalOptions& options) {
  require_command(app);
  app.add_option("-s,--socket", options.socket, "The daemon's unix socket")->capture_default_str();
  app.add_flag("-d,--debug", options.debug, "Log in detail");
  app.add_flag("--verbose", options.verbose, "Print JSON where a command prints a name");
  add_volume_commands(app, options);
  add_pool_commands(app, options);
  add_snapshot_commands(app, options);
  add_backup_commands(app, options);
  add_job_commands(app, options);
}

}  // namespace convoy
