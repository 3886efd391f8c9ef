#include "daemon/docker_plugin.h"

#include <iterator>
#include <optional>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/size.h"
#include "base/time.h"
#include "daemon/request_fields.h"
#include "daemon/views.h"

namespace convoy {
namespace {

using nlohmann::ordered_json;

// Docker's own content type for plugins.
HttpResponse answer(std::string body) {
  return {200, "application/vnd.docker.plugins.v1.1+json", std::move(body) + "\n", {}};
}

VolumeView require(Volumes& volumes, const std::string& name) {
  std::optional<VolumeView> view = find_by_name(volumes, name);
  if (!view) throw Error(ErrorKind::kNotFound, "there is no volume '{}'", name);
  return std::move(*view);
}

std::string uuid_of(const VolumeView& view) {
  return view.volume.uuid.to_string();
}

ordered_json volume_entry(const VolumeView& view) {
  return {{"Name", view.volume.name}, {"Mountpoint", view.mountpoint.native()}};
}

// What 'docker volume inspect' shows beside name and mount point.
ordered_json status_of(const VolumeView& view, std::optional<std::uint64_t> used) {
  ordered_json snapshots = ordered_json::array();
  for (const SnapshotRow& snapshot : view.snapshots) snapshots.push_back(snapshot.name);
  ordered_json status = {{"Device", view.device.native()},
                         {"Filesystem", view.volume.filesystem},
                         {"Size", view.volume.size},
                         {"Snapshots", snapshots},
                         {"UUID", uuid_of(view)}};
  if (used) status["Used"] = *used;
  return status;
}

const std::string kSuccess = R"({"Err":""})";

}  // namespace

const DockerPlugin::Call DockerPlugin::kCalls[] = {
    {"/Plugin.Activate", &DockerPlugin::activate},
    {"/VolumeDriver.Capabilities", &DockerPlugin::capabilities},
    {"/VolumeDriver.Create", &DockerPlugin::create},
    {"/VolumeDriver.Remove", &DockerPlugin::remove},
    {"/VolumeDriver.Mount", &DockerPlugin::mount},
    {"/VolumeDriver.Unmount", &DockerPlugin::unmount},
    {"/VolumeDriver.Path", &DockerPlugin::path},
    {"/VolumeDriver.Get", &DockerPlugin::get},
    {"/VolumeDriver.List", &DockerPlugin::list},
};

const DockerPlugin::Call* DockerPlugin::find_call(const std::string& path) {
  for (const Call& call : kCalls) {
    if (path == call.path) return &call;
  }
  return nullptr;
}

bool DockerPlugin::serves(const std::string& path) const {
  return find_call(path) != nullptr;
}

HttpResponse DockerPlugin::handle(const HttpRequest& request) const {
  spdlog::debug("Docker: {}", request.path);
  std::string name;
  try {
    const RequestFields fields(request.body);
    name = fields.text("Name");
    return answer((this->*find_call(request.path)->handler)(fields));
  } catch (const std::exception& error) {
    // Docker asks all its plugins for each name that it doesn't know.
    const auto* const known = dynamic_cast<const Error*>(&error);
    const bool is_question = known != nullptr && known->kind() == ErrorKind::kNotFound &&
                             request.path == "/VolumeDriver.Get";
    spdlog::log(is_question ? spdlog::level::debug : spdlog::level::warn,
                "Docker: {} of volume '{}': {}", request.path, name, error.what());
    return answer(to_text({{"Err", error.what()}}));
  }
}

std::string DockerPlugin::activate(const RequestFields&) const {
  return R"({"Implements":["VolumeDriver"]})";
}

std::string DockerPlugin::capabilities(const RequestFields&) const {
  return R"({"Capabilities":{"Scope":"local"}})";
}

std::string DockerPlugin::create(const RequestFields& fields) const {
  Creations::Request request;
  request.volume.name = fields.text("Name");
  if (request.volume.name.empty()) throw Error(ErrorKind::kInvalidArgument, "Create needs a Name");
  for (const auto& [option, value] : fields.texts("Opts")) {
    if (value.empty())
      throw Error(ErrorKind::kInvalidArgument, "the option '{}' has no value", option);
    if (option == "size") {
      request.volume.size = parse_size(value);
    } else if (option == "fs") {
      request.volume.filesystem = value;
    } else if (option == "mkfs-options") {
      request.volume.mkfs_options = value;
    } else if (option == "mount-options") {
      request.volume.mount_options = value;
    } else if (option == "backup") {
      request.backup.url = value;
    } else if (option == "s3-endpoint" || option == "endpoint") {
      request.backup.s3_endpoint = value;
    } else if (option == "driver" && value != kDriverName) {
      throw Error(ErrorKind::kInvalidArgument, "there is no driver '{}' but {}", value,
                  kDriverName);
    } else if (option == "id" || option == "type" || option == "iops" || option == "vm") {
      spdlog::warn("Docker: volume {}: this driver ignores the option {}", request.volume.name,
                   option);
    } else if (option != "driver") {
      throw Error(ErrorKind::kInvalidArgument,
                  "unknown option '{}'; there are size, fs, backup, s3-endpoint (or endpoint), "
                  "mkfs-options, mount-options and driver",
                  option);
    }
  }
  if (request.backup.url.empty() && !request.backup.s3_endpoint.empty())
    throw Error(ErrorKind::kInvalidArgument,
                "the option s3-endpoint says where a backup is: give backup=URL, too");
  creations_.create(request);
  return kSuccess;
}

std::string DockerPlugin::remove(const RequestFields& fields) const {
  const std::string name = fields.text("Name");
  if (settings_.ignore_docker_delete) {
    spdlog::info("Docker: volume {} is kept (--ignore-docker-delete)", name);
    return kSuccess;
  }
  if (const auto volume = find_by_name(volumes_, name)) {
    volumes_.remove(uuid_of(*volume));
  } else if (const auto progress = creations_.progress(name)) {
    throw Error(ErrorKind::kBusy, "volume '{}' {}; remove it when that is done", name, *progress);
  }
  return kSuccess;
}

std::string DockerPlugin::mount(const RequestFields& fields) const {
  const std::string name = fields.text("Name");
  if (!find_by_name(volumes_, name)) {
    if (const auto progress = creations_.progress(name)) {
      throw Error(ErrorKind::kUnavailable, "volume '{}' {}; try again when that is done", name,
                  *progress);
    }
    if (settings_.create_on_docker_mount) {
      Creations::Request request;
      request.volume.name = name;
      creations_.create(request);
    }
  }
  const auto mountpoint = volumes_.mount(uuid_of(require(volumes_, name)), "",
                                         VolumeUser::Kind::kDocker, fields.text("ID"));
  return to_text({{"Mountpoint", mountpoint.native()}, {"Err", ""}});
}

std::string DockerPlugin::unmount(const RequestFields& fields) const {
  volumes_.unmount(uuid_of(require(volumes_, fields.text("Name"))), VolumeUser::Kind::kDocker,
                   fields.text("ID"));
  return kSuccess;
}

std::string DockerPlugin::path(const RequestFields& fields) const {
  return to_text(
      {{"Mountpoint", require(volumes_, fields.text("Name")).mountpoint.native()}, {"Err", ""}});
}

std::string DockerPlugin::get(const RequestFields& fields) const {
  const VolumeView view = require(volumes_, fields.text("Name"));
  ordered_json volume = volume_entry(view);
  volume["CreatedAt"] = format_rfc3339(view.volume.created);
  volume["Status"] = status_of(view, volumes_.used_bytes(view.volume));
  return to_text({{"Volume", volume}, {"Err", ""}});
}

std::string DockerPlugin::list(const RequestFields&) const {
  ordered_json entries = ordered_json::array();
  for (const VolumeView& view : volumes_.list()) entries.push_back(volume_entry(view));
  return to_text({{"Volumes", entries}, {"Err", ""}});
}

}  // namespace convoy
