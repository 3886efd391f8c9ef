// backup create, list, inspect, delete, verify, gc, unlock
#include <cstdio>

#include <fmt/format.h>

#include "base/size.h"
#include "cli/commands.h"
#include "cli/table.h"

namespace convoy {

void run_backup_create(Client& client, const BackupCreateOptions& options) {
  const Json backup = client.run_job({"POST",
                                      "/v1/backup",
                                      {},
                                      {{"Snapshot", options.snapshot},
                                       {"Destination", options.destination.url},
                                       {"S3Endpoint", options.destination.s3_endpoint},
                                       {"Compression", options.compression}}});
  const auto bytes = [&](const char* field) {
    return format_size(backup.value(field, std::uint64_t{0}));
  };
  fmt::print(stderr, "{} backup: {} read, {} stored, {} were there already; {:.1f} s\n",
             backup.value("Incremental", false) ? "incremental" : "full", bytes("BytesRead"),
             bytes("BytesStored"), bytes("BytesReused"), backup.value("Seconds", 0.0));
  const std::string url = backup.value("URL", "");
  if (options.verbose) return print_json({{"URL", url}});
  fmt::print("{}\n", url);
}

void run_backup_list(Client& client, const UrlArguments& destination,
                     const std::string& volume_name, ListForm form) {
  const Json answer = client.call({"GET",
                                   "/v1/backups",
                                   {{"destination", destination.url},
                                    {"s3-endpoint", destination.s3_endpoint},
                                    {"volume", volume_name}}});
  for (const Json& damaged : answer.value("Damaged", Json::array())) {
    fmt::print(stderr, "convoy: warning: {}\n", damaged.get<std::string>());
  }
  const Json backups = answer.value("Backups", Json::object());
  if (form == ListForm::kJson) return print_json(backups);
  std::vector<TableRow> rows;
  for (const Json& backup : backups) {
    const auto size = [&](const char* field) {
      // Rancher Convoy did not tell what its backups take.
      return backup.contains(field) ? format_size(std::stoull(backup.value(field, "0"))) : "-";
    };
    rows.push_back({backup.value("CreatedTime", ""), backup.value("VolumeName", ""),
                    backup.value("SnapshotName", ""), size("VolumeSize"), size("StoredSize"),
                    backup.value("BackupURL", "")});
  }
  fmt::print("{}", format_table({"DATE", "VOLUME", "SNAPSHOT", "SIZE", "STORED", "URL"}, rows));
}

void run_backup_inspect(Client& client, const UrlArguments& backup) {
  print_json(client.call(
      {"GET", "/v1/backup", {{"url", backup.url}, {"s3-endpoint", backup.s3_endpoint}}}));
}

void run_backup_delete(Client& client, const UrlArguments& backup) {
  client.run_job(
      {"DELETE", "/v1/backup", {{"url", backup.url}, {"s3-endpoint", backup.s3_endpoint}}});
  fmt::print("\n");
}

bool run_backup_verify(Client& client, const UrlArguments& address, VerifyDepth depth) {
  const Json result = client.run_job({"POST",
                                      "/v1/backup/verify",
                                      {},
                                      {{"URL", address.url},
                                       {"S3Endpoint", address.s3_endpoint},
                                       {"Quick", depth == VerifyDepth::kQuick}}});
  const Json& damaged = result.at("Damaged");
  for (const Json& part : damaged) {
    std::string where;
    if (part.contains("Offset")) {
      const auto begin = part["Offset"].get<std::uint64_t>();
      where = fmt::format("bytes {} to {}: ", begin, begin + part["Size"].get<std::uint64_t>());
    }
    fmt::print(stderr, "convoy: damaged: {}{}\n", where, part.value("Reason", ""));
  }
  if (result.contains("NotNoted"))
    fmt::print(
        stderr,
        "convoy: warning: no note of it can be left in the store, so later backups may build "
        "on it: {}\n",
        result.value("NotNoted", ""));
  print_json(result);
  return damaged.empty();
}

bool run_backup_gc(Client& client, const UrlArguments& destination, GcMode mode) {
  const bool dry_run = mode == GcMode::kDryRun;
  const Json result = client.run_job({"POST",
                                      "/v1/backup/gc",
                                      {},
                                      {{"Destination", destination.url},
                                       {"S3Endpoint", destination.s3_endpoint},
                                       {"DryRun", dry_run}}});
  std::size_t removed = 0, rewritten = 0;
  std::uint64_t freed = 0;
  for (const Json& pack : result.at("Packs")) {
    ++(pack.value("Action", "") == "remove" ? removed : rewritten);
    freed += pack.value("Freed", std::uint64_t{0});
  }
  for (const Json& note : result.at("Notes"))
    fmt::print(stderr, "convoy: note: {}\n", note.get<std::string>());
  for (const Json& failure : result.at("Failures"))
    fmt::print(stderr, "convoy: {}\n", failure.get<std::string>());
  fmt::print(stderr, "{} packs {}removed, {} rewritten: {} {}\n", removed,
             dry_run ? "would be " : "", rewritten, format_size(freed),
             dry_run ? "would be free" : "freed");
  print_json(result);
  return result.at("Failures").empty();
}

void run_backup_unlock(Client& client, const UrlArguments& destination) {
  print_json(
      client.call({"POST",
                   "/v1/backup/unlock",
                   {},
                   {{"Destination", destination.url}, {"S3Endpoint", destination.s3_endpoint}}}));
}

}  // namespace convoy
