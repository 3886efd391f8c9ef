#include "objectstore/s3_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/size.h"
#include "objectstore/s3_credentials.h"

namespace convoy {
namespace {

constexpr std::array<std::string_view, 10> kKeys = {
    "addressing", "ca-bundle",  "connections", "download-limit", "encryption",
    "endpoint",   "kms-key-id", "profile",     "storage-class",  "upload-limit"};

constexpr unsigned kMaxConnections = 256;

constexpr std::string_view kScheme = "s3://";

// Where "bucket@region" ends.
std::size_t host_end(const std::string& url) {
  return std::min(url.find('/', kScheme.size()), url.size());
}

// Whether the destination is the one that the section names, or under it.
bool is_under(std::string url, const std::string& section, const std::string& region) {
  const std::size_t at = url.find('@');
  const bool has_region = at < host_end(url);
  const bool wants_region = section.find('@') < host_end(section);
  if (has_region && !wants_region) url.erase(at, host_end(url) - at);
  if (!has_region && wants_region) url.insert(host_end(url), "@" + region);
  return url.starts_with(section) &&
         (section.ends_with('/') || url.size() == section.size() || url[section.size()] == '/');
}

// The settings for one destination, which is in `region`.
std::map<std::string, std::string> settings_of(const std::string& url, const std::string& region,
                                               const IniFile& settings) {
  std::map<std::string, std::string> found;
  std::string longest;
  for (const auto& [section, values] : settings) {
    if (section != "default" && !section.starts_with(kScheme))
      throw Error(ErrorKind::kInvalidArgument,
                  "[{}] is for no destination: sections are [default] or look like "
                  "[s3://bucket/] or [s3://bucket@region/path/]",
                  section);
    if (is_under(url, section, region) && section.size() > longest.size()) longest = section;
    for (const auto& [key, value] : values) {
      if (std::ranges::find(kKeys, key) == kKeys.end())
        throw Error(ErrorKind::kInvalidArgument, "[{}] has an unknown key '{}'; there are {}",
                    section, key, fmt::join(kKeys, ", "));
    }
  }
  for (const std::string& section : {longest, std::string("default")}) {
    const auto values = settings.find(section);
    if (values != settings.end()) found.insert(values->second.begin(), values->second.end());
  }
  return found;
}

std::optional<std::string> known_region(const S3Location& location, const std::string& profile,
                                        const Environment& environment) {
  if (!location.region.empty()) return location.region;
  for (const char* const variable : {"AWS_REGION", "AWS_DEFAULT_REGION"}) {
    if (auto region = environment(variable)) return region;
  }
  return profile_value(environment, profile, "region");
}

std::string region_of(const S3Location& location, const std::string& profile, bool is_aws,
                      const Environment& environment) {
  if (const auto region = known_region(location, profile, environment)) return *region;
  if (!is_aws) return "us-east-1";  // which other servers take, whatever they are
  throw Error(
      ErrorKind::kInvalidArgument,
      "the region of the bucket '{}' is not known: write s3://{}@REGION/, or set AWS_REGION in "
      "the daemon's environment",
      location.bucket, location.bucket);
}

void set_endpoint(const std::string& endpoint, S3Options& options) {
  const std::size_t colon = endpoint.find("://");
  const std::string scheme = endpoint.substr(0, colon);
  std::string host = colon == std::string::npos ? "" : endpoint.substr(colon + 3);
  while (host.ends_with('/')) host.pop_back();
  if ((scheme != "http" && scheme != "https") || host.empty() ||
      host.find_first_of("/?#@ ") != std::string::npos)
    throw Error(
        ErrorKind::kInvalidArgument,
        "'{}' is no address of an S3 server: it looks like https://host or http://host:port",
        endpoint.find('@') == std::string::npos ? endpoint : "***");  // a password, that is
  options.scheme = scheme;
  options.host = host;
}

}  // namespace

S3Options resolve_s3(const S3Location& location, const std::string& url,
                     const std::string& endpoint, const IniFile& settings,
                     const Environment& environment) {
  const std::map<std::string, std::string> own =
      settings_of(url, known_region(location, "", environment).value_or(""), settings);
  const auto setting = [&](const char* key) {
    const auto found = own.find(key);
    return found == own.end() ? std::string() : found->second;
  };
  const auto bad = [&](const char* key, const char* what) {
    return Error(ErrorKind::kInvalidArgument, "{} = {}: {}", key, setting(key), what);
  };

  S3Options options;
  options.bucket = location.bucket;
  options.path = location.path;
  options.profile = setting("profile");

  std::string address = endpoint.empty() ? setting("endpoint") : endpoint;
  for (const char* const variable : {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}) {
    if (address.empty()) address = environment(variable).value_or("");
  }
  if (address.empty())
    address = profile_value(environment, options.profile, "endpoint_url").value_or("");
  const bool is_aws = address.empty();
  options.region = region_of(location, options.profile, is_aws, environment);
  if (is_aws)
    options.host = fmt::format("s3.{}.amazonaws.com{}", options.region,
                               options.region.starts_with("cn-") ? ".cn" : "");
  else
    set_endpoint(address, options);

  // A certificate for *.s3.amazonaws.com is none for a name with more dots.
  options.addressing = is_aws && options.bucket.find('.') == std::string::npos
                           ? S3Options::Addressing::kVirtualHost
                           : S3Options::Addressing::kPath;
  if (const std::string addressing = setting("addressing"); addressing == "path")
    options.addressing = S3Options::Addressing::kPath;
  else if (addressing == "virtual")
    options.addressing = S3Options::Addressing::kVirtualHost;
  else if (!addressing.empty())
    throw bad("addressing", "give path or virtual");

  options.storage_class = setting("storage-class");
  if (options.storage_class == "GLACIER" || options.storage_class == "DEEP_ARCHIVE")
    throw bad("storage-class",
              "what is in an archive can't be read at once, as backups must be; GLACIER_IR can");
  options.encryption = setting("encryption");
  options.kms_key = setting("kms-key-id");
  if (!options.encryption.empty() && options.encryption != "AES256" &&
      options.encryption != "aws:kms")
    throw bad("encryption", "give AES256 or aws:kms");
  if (!options.kms_key.empty() && options.encryption != "aws:kms")
    throw bad("kms-key-id", "it is for encryption = aws:kms only");

  options.http.ca_bundle = setting("ca-bundle");
  if (options.http.ca_bundle.empty())
    options.http.ca_bundle = environment("AWS_CA_BUNDLE").value_or("");
  if (const std::string limit = setting("upload-limit"); !limit.empty())
    options.http.upload_limit = parse_size(limit);
  if (const std::string limit = setting("download-limit"); !limit.empty())
    options.http.download_limit = parse_size(limit);
  if (const std::string text = setting("connections"); !text.empty()) {
    unsigned& number = options.http.connections;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || number == 0 ||
        number > kMaxConnections)
      throw bad("connections", "give a number from 1 to 256");
  }
  return options;
}

}  // namespace convoy
