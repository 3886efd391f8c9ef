// Where backups go, and how one of them is named, as users write and read it.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "backup/convoy_store.h"
#include "base/uuid.h"
#include "objectstore/object_store.h"
#include "objectstore/s3_options.h"

namespace convoy {

// "vfs:///path/": a directory of this host, which may be an NFS mount; absolute, without "." and
// "..", with one '/' at its end.
using DirectoryLocation = std::filesystem::path;

// "vfs:///path/" or "s3://bucket@region/path/".
struct Destination {
  std::variant<DirectoryLocation, S3Location> location;

  // Characters of the path may be percent-encoded; '?', '#' and '%' must be. Throws
  // kInvalidArgument for what is no destination.
  static Destination parse(std::string_view url);

  // A URL that parses to the same destination: equal destinations have equal texts.
  std::string to_string() const;

  bool operator==(const Destination&) const = default;
};

// "vfs:///path/?backup=<uuid>&volume=<uuid of the lineage>", or of a backup that Rancher Convoy
// made, "vfs:///path/?backup=<name>&volume=<name>".
struct BackupUrl {
  Destination destination;
  Uuid backup;   // of Convoy's the one that stands for its name
  Uuid lineage;  // nil for Convoy's
  std::optional<ConvoyBackupName> convoy = std::nullopt;

  // The parameters may come in either order, and the six characters "\u0026" stand for "&": that is
  // how JSON written by others shows it. Throws as Destination::parse does.
  static BackupUrl parse(std::string_view url);

  std::string to_string() const;

  bool operator==(const BackupUrl&) const = default;
};

// What is known of S3 besides a destination's URL.
struct S3Setup {
  std::filesystem::path settings_file = {};  // s3.conf; it need not be there
  Environment environment = process_environment;
};

// Opens destinations, so that whoever uses one of them at the same time shares its connections and
// its limits of bandwidth. Thread-safe.
class Destinations {
 public:
  explicit Destinations(S3Setup s3 = {}) : s3_(std::move(s3)) {}

  struct Opened {
    std::unique_ptr<ObjectStore> objects;
    // The destination, and for S3 the server: one URL may stand for buckets of several.
    std::string known_as;
  };
  // `s3_endpoint` is what the user gave with the command, or empty. `stop` ends requests to a
  // server (objectstore/s3_store.h). Throws kInvalidArgument if the destination's directory does
  // not exist, or for settings of S3 that can't be; kIo if it can't be opened.
  Opened open(const Destination& destination, const std::string& s3_endpoint = "",
              std::stop_token stop = {});

 private:
  std::shared_ptr<HttpClient> client_for(const S3Options& options);

  struct SharedClient {
    S3Options options;
    std::weak_ptr<HttpClient> client;  // of those who have the destination open
  };
  const S3Setup s3_;
  std::mutex mutex_;
  std::vector<SharedClient> clients_;
};

}  // namespace convoy
