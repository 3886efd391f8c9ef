// create, restore, delete, mount, umount, trim, list, inspect, info
#include <cstdio>

#include <fmt/format.h>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/for_each.h"

namespace convoy {

void print_json(const Json& json) {
  fmt::print("{}\n", json.dump(1, '\t', false, Json::error_handler_t::replace));
}

void run_create(Client& client, const CreateOptions& options) {
  const std::pair<const char*, bool> ignored[] = {{"--id", !options.id.empty()},
                                                  {"--type", !options.type.empty()},
                                                  {"--iops", !options.iops.empty()},
                                                  {"--vm", options.vm}};
  for (const auto& [option, given] : ignored) {
    if (given) fmt::print(stderr, "convoy: warning: the devicemapper driver ignores {}\n", option);
  }
  const Json volume = client.run_job({"POST",
                                      "/v1/volume",
                                      {},
                                      {{"Name", options.name},
                                       {"Driver", options.driver},
                                       {"Size", options.size},
                                       {"Backup", options.backup},
                                       {"AllowDamaged", options.allow_damaged},
                                       {"Filesystem", options.filesystem},
                                       {"MkfsOptions", options.mkfs_options},
                                       {"MountOptions", options.mount_options},
                                       {"S3Endpoint", options.s3_endpoint}}});
  for (const Json& lost : volume.value("Lost", Json::array()))
    fmt::print(stderr, "convoy: lost: {}\n", lost.get<std::string>());
  if (options.verbose) return print_json(volume);
  fmt::print("{}\n", volume.value("Name", ""));
}

void run_delete(Client& client, const std::vector<std::string>& volumes) {
  for_each(volumes, [&](const std::string& volume) {
    client.call({"DELETE", "/v1/volume", {{"name", volume}}});
    fmt::print("\n");
  });
}

void run_mount(Client& client, const std::string& volume, const std::string& mountpoint) {
  const Json answer =
      client.call({"POST", "/v1/volume/mount", {}, {{"Name", volume}, {"MountPoint", mountpoint}}});
  fmt::print("{}\n", answer.value("MountPoint", ""));
}

void run_umount(Client& client, const std::string& volume, Force force) {
  client.call(
      {"POST", "/v1/volume/umount", {}, {{"Name", volume}, {"Force", force == Force::kYes}}});
  fmt::print("\n");
}

void run_restore(Client& client, const UrlArguments& backup, const std::string& volume) {
  const Json restored = client.run_job(
      {"POST",
       "/v1/volume/restore",
       {},
       {{"Name", volume}, {"Backup", backup.url}, {"S3Endpoint", backup.s3_endpoint}}});
  fmt::print("{}\n", restored.value("Name", ""));
}

void run_trim(Client& client, const std::string& volume) {
  const Json result = client.run_job({"POST", "/v1/volume/trim", {}, {{"Name", volume}}});
  fmt::print("{}\n", result.value("Trimmed", std::uint64_t{0}));
}

void run_list(Client& client, ListDetail detail) {
  Json volumes = client.call({"GET", "/v1/volumes"});
  if (detail == ListDetail::kDriverInfo) {
    for (Json& volume : volumes) {
      const Json driver_info = volume["DriverInfo"];
      volume = driver_info;
    }
  }
  print_json(volumes);
}

void run_inspect(Client& client, const std::string& volume) {
  print_json(client.call({"GET", "/v1/volume", {{"name", volume}}}));
}

void run_info(Client& client) {
  print_json(client.call({"GET", "/v1/info"}));
}

void run_pool_grow(Client& client) {
  print_json(client.call({"POST", "/v1/pool/grow"}));
}

}  // namespace convoy
