// The daemon's settings that users can ask for.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

namespace convoy {

struct GeneralSettings {
  std::filesystem::path root;
  std::string mount_namespace;
  bool ignore_docker_delete = false;
  bool create_on_docker_mount = false;
  std::chrono::seconds command_timeout{};
};

}  // namespace convoy
