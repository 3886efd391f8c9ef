#include "objectstore/s3_credentials.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <thread>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "base/bytes.h"
#include "base/error.h"
#include "objectstore/http_client.h"
#include "objectstore/ini_file.h"
#include "sys/file.h"

namespace convoy {
namespace {

// Before the end, so that no request is made with keys that end on its way.
constexpr std::chrono::minutes kRefreshBefore{5};

// Between two fetches while those that are known are still good.
constexpr std::chrono::seconds kRetryPause{30};

constexpr std::size_t kMaxAnswer = 64UL * 1024;

// A service that is asked by all on its host at once refuses some.
constexpr unsigned kTries = 3;
constexpr std::chrono::milliseconds kPause{100};

std::filesystem::path home_file(const Environment& environment, const char* variable,
                                const char* name) {
  if (const auto file = environment(variable)) return *file;
  const auto home = environment("HOME");
  return std::filesystem::path(home.value_or("/root")) / ".aws" / name;
}

std::string profile_name(const Environment& environment, const std::string& profile) {
  if (!profile.empty()) return profile;
  return environment("AWS_PROFILE").value_or("default");
}

std::string ask(const HttpClient::Request& request) {
  // On this host, or one step away.
  HttpClient client({.connections = 1,
                     .connect_timeout = std::chrono::seconds(1),
                     .stall_timeout = std::chrono::seconds(5),
                     .no_proxy = "*"});
  HttpClient::Request limited = request;
  limited.max_response = kMaxAnswer;
  for (unsigned tries_left = kTries - 1;; --tries_left) {
    try {
      const HttpClient::Response response = client.perform([&] { return limited; });
      if (response.status == 200) return std::string(as_text(response.body));
      const bool may_pass = response.status == 429 || response.status >= 500;
      throw HttpFailure(may_pass ? HttpFailure::Kind::kTransient : HttpFailure::Kind::kPermanent,
                        fmt::format("it answers with HTTP status {}", response.status),
                        response.status);
    } catch (const HttpFailure& failure) {
      if (failure.kind() != HttpFailure::Kind::kTransient || tries_left == 0) throw;
      std::this_thread::sleep_for(kPause);
    }
  }
}

// The form that both services answer in.
S3Credentials parse_credentials(const std::string& text, std::optional<Timestamp>& expiry) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  const auto field = [&](const char* name) {
    return json.is_object() && json.contains(name) && json[name].is_string()
               ? json[name].get<std::string>()
               : std::string();
  };
  S3Credentials credentials{.access_key = field("AccessKeyId"),
                            .secret_key = field("SecretAccessKey"),
                            .session_token = field("Token")};
  if (credentials.access_key.empty() || credentials.secret_key.empty())
    throw HttpFailure(HttpFailure::Kind::kPermanent, "its answer holds no keys");
  std::string end = field("Expiration");
  if (end.ends_with('Z') && end.find('.') == std::string::npos) end.insert(end.size() - 1, ".000");
  expiry = parse_rfc3339(end);
  return credentials;
}

// As the AWS SDKs have it: of ECS and EKS, besides this host.
bool is_safe_for_token(std::string_view url) {
  if (url.starts_with("https://")) return true;
  constexpr std::array<std::string_view, 6> kHosts = {
      "127.0.0.1", "localhost", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return false;
  url.remove_prefix(kScheme.size());
  const std::string_view server = url.substr(0, url.find('/'));
  if (server.find('@') != std::string_view::npos) return false;
  return std::ranges::any_of(kHosts, [&](std::string_view host) {
    return server == host || (server.starts_with(host) && server[host.size()] == ':');
  });
}

template <typename Action>
auto ask_service(const char* service, Action&& action) {
  try {
    return std::forward<Action>(action)();
  } catch (const HttpFailure& failure) {
    throw Error(ErrorKind::kUnavailable, "no keys for S3 can be had from {}: {}", service,
                failure.message());
  }
}

}  // namespace

std::optional<std::string> profile_value(const Environment& environment, const std::string& profile,
                                         const std::string& key) {
  const std::string name = profile_name(environment, profile);
  const auto look = [&](const IniFile& file, const std::string& section) {
    const auto found = file.find(section);
    if (found == file.end()) return std::optional<std::string>();
    const auto value = found->second.find(key);
    return value == found->second.end() ? std::nullopt : std::optional(value->second);
  };
  const auto file = read_ini(home_file(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials"));
  if (auto value = look(file, name)) return value;
  const auto config = read_ini(home_file(environment, "AWS_CONFIG_FILE", "config"));
  if (auto value = look(config, "profile " + name)) return value;
  return name == "default" ? look(config, name) : std::nullopt;
}

S3Credentials S3CredentialSource::get() {
  const std::lock_guard lock(mutex_);
  const Timestamp time = now();
  if (known_ && (!known_->expiry || time < *known_->expiry - kRefreshBefore))
    return known_->credentials;
  const bool is_valid_still = known_ && time < *known_->expiry;
  if (is_valid_still && time < next_try_) return known_->credentials;
  try {
    known_ = find();
  } catch (const Error& error) {
    if (!is_valid_still) throw;
    spdlog::warn("the keys for S3 end soon: {}", error.message());
  }
  next_try_ = now() + kRetryPause;  // the new ones may end as soon
  return known_->credentials;
}

void S3CredentialSource::forget(const S3Credentials& expired) {
  const std::lock_guard lock(mutex_);
  if (known_ && known_->credentials == expired) known_.reset();
}

S3CredentialSource::Expiring S3CredentialSource::find() const {
  if (!profile_.empty()) return from_profile().value();  // or it throws
  if (auto found = from_environment()) return *found;
  refuse_web_identity();
  if (auto found = from_profile()) return *found;
  if (auto found = from_container()) return *found;
  if (auto found = from_instance()) return *found;
  throw Error(ErrorKind::kInvalidArgument,
              "there are no keys for S3: put them into /root/.aws/credentials, or set "
              "AWS_ACCESS_KEY_ID and "
              "AWS_SECRET_ACCESS_KEY in the daemon's environment");
}

std::optional<S3CredentialSource::Expiring> S3CredentialSource::from_environment() const {
  const auto access = environment_("AWS_ACCESS_KEY_ID");
  const auto secret = environment_("AWS_SECRET_ACCESS_KEY");
  if (!access && !secret) return std::nullopt;
  if (!access || !secret)
    throw Error(ErrorKind::kInvalidArgument,
                "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set");
  return Expiring{{*access, *secret, environment_("AWS_SESSION_TOKEN").value_or("")}, {}};
}

// It would come before the rest, with which the requests would be somebody else's.
void S3CredentialSource::refuse_web_identity() const {
  if (!environment_("AWS_WEB_IDENTITY_TOKEN_FILE") || !environment_("AWS_ROLE_ARN")) return;
  throw Error(
      ErrorKind::kUnsupported,
      "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN are set, and keys by a web identity are "
      "not supported: unset them for the daemon, or name a profile that has keys in s3.conf");
}

std::optional<S3CredentialSource::Expiring> S3CredentialSource::from_profile() const {
  const auto value = [&](const char* key) { return profile_value(environment_, profile_, key); };
  const auto access = value("aws_access_key_id");
  const auto secret = value("aws_secret_access_key");
  if (access && secret)
    return Expiring{{*access, *secret, value("aws_session_token").value_or("")}, {}};
  if (access || secret)
    throw Error(ErrorKind::kInvalidArgument,
                "the AWS profile '{}' has only one of aws_access_key_id and aws_secret_access_key",
                profile_name(environment_, profile_));
  for (const char* const other : {"credential_process", "role_arn", "sso_session", "sso_start_url",
                                  "web_identity_token_file"}) {
    if (!value(other)) continue;
    throw Error(ErrorKind::kUnsupported,
                "the AWS profile '{}' gets its keys by {}, which is not supported: give keys, or "
                "run where a container or an instance has a role",
                profile_name(environment_, profile_), other);
  }
  if (!profile_.empty() || environment_("AWS_PROFILE"))
    throw Error(ErrorKind::kInvalidArgument,
                "neither ~/.aws/credentials nor ~/.aws/config has keys of the profile '{}'",
                profile_name(environment_, profile_));
  return std::nullopt;
}

// "Container credential provider"
std::optional<S3CredentialSource::Expiring> S3CredentialSource::from_container() const {
  std::string url;
  if (const auto relative = environment_("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"))
    url = "http://169.254.170.2" + *relative;
  else if (const auto full = environment_("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
    url = *full;
  else
    return std::nullopt;
  if (!is_safe_for_token(url))
    throw Error(ErrorKind::kInvalidArgument,
                "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither of https:// nor of this host or its "
                "container service, so the token would be sent where others can read it");
  HttpClient::Request request{.method = "GET", .url = url};
  std::string token = environment_("AWS_CONTAINER_AUTHORIZATION_TOKEN").value_or("");
  if (const auto file = environment_("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")) {
    try {
      token = read_text_file(*file);
    } catch (const Error& error) {
      // Not as what it is: of a store, kNotFound would mean an object.
      throw Error(ErrorKind::kUnavailable, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {}",
                  error.message());
    }
  }
  while (token.ends_with('\n')) token.pop_back();
  if (!token.empty()) request.headers["authorization"] = token;
  return ask_service("the container's credential service", [&] {
    Expiring found;
    found.credentials = parse_credentials(ask(request), found.expiry);
    return found;
  });
}

// "Use the Instance Metadata Service to access instance metadata", version 2, of the EC2 User Guide
std::optional<S3CredentialSource::Expiring> S3CredentialSource::from_instance() const {
  std::string disabled = environment_("AWS_EC2_METADATA_DISABLED").value_or("");
  std::ranges::transform(disabled, disabled.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (disabled == "true") return std::nullopt;
  const std::string service =
      environment_("AWS_EC2_METADATA_SERVICE_ENDPOINT").value_or("http://169.254.169.254");
  std::string token;
  try {
    token = ask({.method = "PUT",
                 .url = service + "/latest/api/token",
                 .headers = {{"x-aws-ec2-metadata-token-ttl-seconds", "300"}}});
  } catch (const HttpFailure& failure) {
    if (failure.status() < 500 && failure.status() != 429)
      return std::nullopt;  // this is no instance of EC2's, or hasn't the service
    throw Error(ErrorKind::kUnavailable,
                "no keys for S3 can be had from the instance's metadata service: {}",
                failure.message());
  }
  return ask_service("the instance's metadata service", [&] {
    const auto get = [&](const std::string& path) {
      return ask({.method = "GET",
                  .url = service + "/latest/meta-data/iam/security-credentials/" + path,
                  .headers = {{"x-aws-ec2-metadata-token", token}}});
    };
    const std::string roles = get("");
    Expiring found;
    found.credentials = parse_credentials(get(roles.substr(0, roles.find('\n'))), found.expiry);
    return found;
  });
}

}  // namespace convoy
