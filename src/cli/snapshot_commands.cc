// snapshot create, delete, inspect
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/for_each.h"

namespace convoy {

void run_snapshot_create(Client& client, const std::string& volume, const std::string& name) {
  const Json snapshot =
      client.call({"POST", "/v1/snapshot", {}, {{"Volume", volume}, {"Name", name}}});
  fmt::print("{}\n", snapshot.value("Name", ""));
}

void run_snapshot_delete(Client& client, const std::vector<std::string>& snapshots) {
  for_each(snapshots, [&](const std::string& snapshot) {
    client.call({"DELETE", "/v1/snapshot", {{"name", snapshot}}});
    fmt::print("\n");
  });
}

void run_snapshot_inspect(Client& client, const std::string& snapshot) {
  print_json(client.call({"GET", "/v1/snapshot", {{"name", snapshot}}}));
}

}  // namespace convoy
