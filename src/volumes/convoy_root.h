// The root of a Rancher Convoy 0.5.2: what the files of its devicemapper driver say. Whether the
// pool has what they say is not looked at here.
//
//   <root>/convoy.cfg
//   <root>/devicemapper/devicemapper.cfg                  the pool
//   <root>/devicemapper/devicemapper_volume_<NAME>.json   a volume with its snapshots
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "base/units.h"

namespace convoy {

struct ConvoyPool {
  std::string name;
  std::filesystem::path data_device;
  std::uint64_t data_size = 0;
  std::filesystem::path metadata_device;
  Sectors block_size;
  std::uint64_t default_size = 0;
  std::string default_filesystem;  // may be empty
  std::uint32_t last_thin_id = 0;
};

struct ConvoySnapshot {
  std::string name;
  std::uint32_t thin_id = 0;
  Timestamp created;
};

struct ConvoyVolume {
  std::string name;
  std::uint32_t thin_id = 0;
  std::uint64_t size = 0;
  std::filesystem::path mountpoint;  // empty: not mounted
  std::string filesystem;            // may be empty
  Timestamp created;
  std::vector<ConvoySnapshot> snapshots;
};

struct ConvoyRoot {
  ConvoyPool pool;
  std::vector<ConvoyVolume> volumes;  // by name of file; names are as they are, not checked
  std::vector<std::string> left_out;  // a phrase for each volume, snapshot or setting
};

// True if there is a pool of Convoy in this root that was not taken over.
bool has_convoy_pool(const std::filesystem::path& root);

// Reads all files. Throws kInvalidArgument, naming the file, if the pool's can't be used; a power
// cut could leave them empty. A time that is missing, or that nobody can read, is that of the
// file's last change.
ConvoyRoot read_convoy_root(const std::filesystem::path& root);

// What convoy.cfg says; all of it is off where there is no such file.
struct ConvoySettings {
  bool ignore_docker_delete = false;
  bool create_on_docker_mount = false;
  std::string mount_namespace;
};
// Throws kInvalidArgument, naming the file, if it can't be read.
ConvoySettings read_convoy_settings(const std::filesystem::path& root);

// Gives Convoy's files a name that neither Convoy nor we read: "<name>.taken-over". May be done
// again; the pool's is the last. Existing files are not replaced: then throws kAlreadyExists.
void rename_convoy_files(const std::filesystem::path& root);

// A point in time as Go prints it for Convoy ("Mon Nov 23 00:13:37 +0100 2026") or in RFC 3339;
// nothing for other text.
std::optional<Timestamp> parse_convoy_time(const std::string& text);

}  // namespace convoy
