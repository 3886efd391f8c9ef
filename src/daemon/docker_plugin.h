// Docker's volume plugin protocol (docs.docker.com: "Docker volume plugins"), on the same socket as
// the API.
#pragma once

#include <string>

#include "daemon/creations.h"
#include "daemon/http_server.h"
#include "daemon/settings.h"
#include "volumes/volumes.h"

namespace convoy {

class RequestFields;

// Thread-safe.
class DockerPlugin {
 public:
  DockerPlugin(GeneralSettings settings, Volumes& volumes, Creations& creations)
      : settings_(std::move(settings)), volumes_(volumes), creations_(creations) {}

  // True for the paths of the protocol's calls.
  bool serves(const std::string& path) const;

  // Never throws. Every answer is HTTP 200; a failure has its message in "Err".
  HttpResponse handle(const HttpRequest& request) const;

 private:
  // Each returns the JSON text of a success.
  std::string activate(const RequestFields& fields) const;
  std::string capabilities(const RequestFields& fields) const;
  std::string create(const RequestFields& fields) const;
  std::string remove(const RequestFields& fields) const;
  std::string mount(const RequestFields& fields) const;
  std::string unmount(const RequestFields& fields) const;
  std::string path(const RequestFields& fields) const;
  std::string get(const RequestFields& fields) const;
  std::string list(const RequestFields& fields) const;

  struct Call {
    const char* path;
    std::string (DockerPlugin::*handler)(const RequestFields&) const;
  };
  static const Call kCalls[];
  static const Call* find_call(const std::string& path);

  GeneralSettings settings_;
  Volumes& volumes_;
  Creations& creations_;
};

}  // namespace convoy
