#include "backup/destination.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/name.h"
#include "objectstore/directory_store.h"
#include "objectstore/s3_store.h"

namespace convoy {
namespace {

constexpr std::string_view kDirectoryScheme = "vfs://";
constexpr std::string_view kS3Scheme = "s3://";

std::optional<unsigned> hex_value(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
  return std::nullopt;
}

// The bytes that percent-encoded text stands for; nothing for a '%' without two hex digits, or for
// %00.
std::optional<std::string> decode_percent(std::string_view text) {
  std::string decoded;
  while (!text.empty()) {
    std::size_t used = 1;
    char c = text[0];
    if (c == '%') {
      const auto high = text.size() > 2 ? hex_value(text[1]) : std::nullopt;
      const auto low = text.size() > 2 ? hex_value(text[2]) : std::nullopt;
      if (!high || !low) return std::nullopt;
      c = static_cast<char>(*high * 16 + *low);
      used = 3;
    }
    if (c == '\0') return std::nullopt;
    decoded += c;
    text.remove_prefix(used);
  }
  return decoded;
}

// Left as they are: RFC 3986's unreserved characters, and those that neither a URL's query nor a
// shell takes for itself.
bool stays_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~/:@+,=").find(c) != std::string_view::npos;
}

std::string encode_percent(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    if (stays_plain(c)) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

// The path with single slashes and one at its end; nothing if it is relative or has components that
// mean another one.
std::optional<std::string> normalise(const std::string& text) {
  if (!text.starts_with('/')) return std::nullopt;
  std::string normal = "/";
  for (const std::filesystem::path& component : std::filesystem::path(text).relative_path()) {
    // ".." can't be resolved by text alone: it may follow a symbolic link.
    if (component == "." || component == "..") return std::nullopt;
    if (component.empty()) continue;
    normal += component.native();
    normal += '/';
  }
  return normal;
}

[[noreturn]] void refuse(std::string_view url, std::string_view why) {
  throw Error(ErrorKind::kInvalidArgument,
              "'{}' is no backup destination: {}; it looks like vfs:///path/ or "
              "s3://bucket@region/path/",
              without_secrets(url), why);
}

// The path of a URL, decoded. Its end without '/' means the same.
std::string parse_path(std::string_view url, std::string_view encoded) {
  if (encoded.find_first_of("?#") != std::string_view::npos)
    refuse(url, "a destination has no parameters");
  const auto decoded = decode_percent(encoded);
  if (!decoded) refuse(url, "a '%' is not followed by two hex digits of a character");
  auto path = normalise(*decoded);
  if (!path) refuse(url, "the path must be absolute, without '.' and '..' in it");
  return std::move(*path);
}

bool consists_of(std::string_view text, std::string_view marks) {
  return std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           marks.find(c) != std::string_view::npos;
  });
}

// As Amazon allows them ("Bucket naming rules"), and the '_' of some older ones.
bool is_bucket(std::string_view name) {
  return name.size() >= 3 && name.size() <= 63 && consists_of(name, ".-_") &&
         name.find("..") == std::string_view::npos && consists_of(name.substr(0, 1), "") &&
         consists_of(name.substr(name.size() - 1), "");
}

bool is_utf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

S3Location parse_s3(std::string_view url) {
  const std::string_view rest = url.substr(kS3Scheme.size());
  const std::string_view host = rest.substr(0, rest.find('/'));
  const std::string_view path = rest.substr(host.size());
  const std::size_t at = host.find('@');
  const std::string_view bucket = host.substr(0, at);
  const std::string_view region = at == std::string_view::npos ? "" : host.substr(at + 1);
  if (!is_bucket(bucket))
    refuse(url, "a bucket's name has 3 to 63 small letters, digits, dots and hyphens");
  if ((at != std::string_view::npos && region.empty()) || region.size() > 63 ||
      !consists_of(region, "-"))
    refuse(url, "a region looks like eu-central-1");
  const std::string normal = parse_path(url, path.empty() ? "/" : path);
  // Lists of objects in XML can't hold them.
  if (std::ranges::any_of(normal, [](unsigned char c) { return c < ' ' || c == 0x7F; }))
    refuse(url, "a path in S3 has no control characters");
  if (!is_utf8(normal)) refuse(url, "a path in S3 is UTF-8");
  return {.bucket = std::string(bucket), .region = std::string(region), .path = normal.substr(1)};
}

[[noreturn]] void refuse_backup(std::string_view url, std::string_view why) {
  throw Error(ErrorKind::kInvalidArgument,
              "'{}' is no backup's URL: {}; it looks like 'vfs:///path/?backup=…&volume=…', in "
              "quotes, since a shell ends a command at '&'",
              without_secrets(url), why);
}

// What the two parameters mean together.
BackupUrl make_url(std::string_view url, const Destination& destination, const std::string& backup,
                   const std::string& volume) {
  const auto backup_uuid = Uuid::parse(backup);
  const auto volume_uuid = Uuid::parse(volume);
  if (backup_uuid && volume_uuid) return {destination, *backup_uuid, *volume_uuid};
  constexpr std::string_view kConvoyPrefix = "backup-";
  if (!backup.starts_with(kConvoyPrefix) || !is_valid_name(backup) || !is_valid_name(volume)) {
    refuse_backup(url,
                  "backup= and volume= must be UUIDs, or the names of a backup that Rancher Convoy "
                  "made and of its volume");
  }
  const ConvoyBackupName name{.volume = volume, .backup = backup};
  return {destination, name.uuid(), Uuid(), name};
}

}  // namespace

Destination Destination::parse(std::string_view url) {
  if (url.starts_with(kS3Scheme)) return {parse_s3(url)};
  if (!url.starts_with(kDirectoryScheme)) refuse(url, "it begins with neither vfs:// nor s3://");
  return {DirectoryLocation(parse_path(url, url.substr(kDirectoryScheme.size())))};
}

std::string Destination::to_string() const {
  if (const auto* const s3 = std::get_if<S3Location>(&location)) {
    return fmt::format("{}{}{}{}/{}", kS3Scheme, s3->bucket, s3->region.empty() ? "" : "@",
                       s3->region, encode_percent(s3->path));
  }
  return fmt::format("{}{}", kDirectoryScheme,
                     encode_percent(std::get<DirectoryLocation>(location).native()));
}

BackupUrl BackupUrl::parse(std::string_view url) {
  const std::size_t question = url.find('?');
  if (question == std::string_view::npos) refuse_backup(url, "it names no backup");
  const Destination destination = Destination::parse(url.substr(0, question));

  std::string query(url.substr(question + 1));
  constexpr std::string_view kEscapedAnd = "\\u0026";
  for (std::size_t at = query.find(kEscapedAnd); at != std::string::npos;
       at = query.find(kEscapedAnd)) {
    query.replace(at, kEscapedAnd.size(), 1, '&');
  }
  std::optional<std::string> backup, volume;
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::string_view parameter = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), parameter.size() + 1));
    const std::size_t equals = std::min(parameter.find('='), parameter.size() - 1);
    const std::string_view name = parameter.substr(0, equals);
    std::optional<std::string>* value = nullptr;
    if (name == "backup") value = &backup;
    if (name == "volume") value = &volume;
    if (value == nullptr || *value) refuse_backup(url, "after '?' stand backup= and volume= only");
    *value = parameter.substr(equals + 1);
  }
  if (!backup || !volume) refuse_backup(url, "backup= and volume= must both be there");
  return make_url(url, destination, *backup, *volume);
}

std::string BackupUrl::to_string() const {
  return fmt::format("{}?backup={}&volume={}", destination.to_string(),
                     convoy ? convoy->backup : backup.to_string(),
                     convoy ? convoy->volume : lineage.to_string());
}

std::shared_ptr<HttpClient> Destinations::client_for(const S3Options& options) {
  const std::lock_guard lock(mutex_);
  std::erase_if(clients_, [](const SharedClient& shared) { return shared.client.expired(); });
  for (const SharedClient& shared : clients_) {
    auto client = shared.client.lock();
    if (client && shared.options == options) return client;
  }
  auto client = std::make_shared<HttpClient>(options.http);
  clients_.push_back({options, client});
  return client;
}

Destinations::Opened Destinations::open(const Destination& destination,
                                        const std::string& s3_endpoint, std::stop_token stop) {
  const std::string url = destination.to_string();
  if (const auto* const bucket = std::get_if<S3Location>(&destination.location)) {
    const IniFile settings = s3_.settings_file.empty() ? IniFile() : read_ini(s3_.settings_file);
    const S3Options options = resolve_s3(*bucket, url, s3_endpoint, settings, s3_.environment);
    return {
        std::make_unique<S3Store>(options, s3_.environment, client_for(options), std::move(stop)),
        fmt::format("{} at {}://{}", url, options.scheme, options.host)};
  }
  const auto& path = std::get<DirectoryLocation>(destination.location);
  try {
    return {std::make_unique<DirectoryStore>(path), url};
  } catch (const Error&) {
    if (std::filesystem::is_directory(path)) throw;
    throw Error(ErrorKind::kInvalidArgument,
                "the backup destination {} is not an existing directory", path.native());
  }
}

}  // namespace convoy
