#include "objectstore/s3_error.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cstdlib>

#include <curl/curl.h>
#include <fmt/format.h>
#include <pugixml.hpp>

#include "base/bytes.h"
#include "base/time.h"

namespace convoy {
namespace {

struct Detail {
  std::string code, message, region, endpoint;
};

// What comes from a server goes into a log and on a terminal.
std::string clean(std::string text) {
  constexpr std::size_t kLongest = 300;
  if (text.size() > kLongest) text.resize(kLongest);
  std::ranges::replace_if(text, [](unsigned char c) { return c < ' ' || c == 0x7F; }, ' ');
  return text;
}

Detail parse(const HttpClient::Response& response) {
  pugi::xml_document document;
  document.load_buffer(response.body.data(), response.body.size());
  const pugi::xml_node error = document.child("Error");
  const auto field = [&](const char* name) { return clean(error.child_value(name)); };
  Detail detail{.code = field("Code"),
                .message = field("Message"),
                .region = field("Region"),
                .endpoint = field("Endpoint")};
  if (detail.region.empty())
    detail.region = clean(response.header("x-amz-bucket-region").value_or(""));
  return detail;
}

bool is_one_of(std::string_view code, std::initializer_list<std::string_view> codes) {
  return std::ranges::find(codes, code) != codes.end();
}

Error skewed_clock(const HttpClient::Response& response) {
  const std::string date = response.header("date").value_or("");
  const std::time_t server = ::curl_getdate(date.c_str(), nullptr);
  std::string difference;
  if (server >= 0) {
    const auto minutes = std::chrono::duration_cast<std::chrono::minutes>(
        now() - std::chrono::system_clock::from_time_t(server));
    difference = fmt::format(" by {} minutes", std::abs(minutes.count()));
  }
  return {ErrorKind::kIo,
          "the clock of this host and that of the S3 server differ{}, and the server takes no "
          "requests from such: set this host's clock (chrony or systemd-timesyncd)",
          difference};
}

}  // namespace

std::string server_in(const std::string& location) {
  const std::size_t scheme_end = location.find("://");
  if (scheme_end == std::string::npos) return {};
  const std::size_t host_begin = scheme_end + 3;
  const std::string server = location.substr(0, location.find_first_of("/?", host_begin));
  const std::string scheme = location.substr(0, scheme_end);
  const bool is_host =
      server.size() > host_begin &&
      std::all_of(
          server.begin() + static_cast<std::ptrdiff_t>(host_begin), server.end(),
          [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '-' || c == ':'; });
  return is_host && (scheme == "http" || scheme == "https") ? server : "";
}

std::string s3_error_code(const HttpClient::Response& response) {
  return parse(response).code;
}

bool is_transient(const HttpClient::Response& response, const std::string& code) {
  constexpr std::array kStatuses = {408L, 429L, 500L, 502L, 503L, 504L};
  return std::ranges::find(kStatuses, response.status) != kStatuses.end() ||
         is_one_of(code, {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable",
                          "OperationAborted", "ConditionalRequestConflict", "BadDigest",
                          "XAmzContentSHA256Mismatch"});
}

bool is_expired_key(const std::string& code) {
  return is_one_of(code, {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"});
}

Error s3_error(const HttpClient::Response& response, const S3Options& options) {
  const Detail detail = parse(response);
  const std::string& code = detail.code;
  const auto other_region = [&] {
    return Error(ErrorKind::kInvalidArgument,
                 "the bucket '{}' is not in the region '{}'{}: write s3://{}@{}/", options.bucket,
                 options.region, detail.region.empty() ? "" : " but in '" + detail.region + "'",
                 options.bucket, detail.region.empty() ? "REGION" : detail.region);
  };
  const bool is_redirection = response.status >= 301 && response.status <= 308;
  if (is_redirection || code == "PermanentRedirect" || code == "AuthorizationHeaderMalformed" ||
      code == "IllegalLocationConstraintException") {
    if (!detail.region.empty() && detail.region != options.region) return other_region();
    std::string server = detail.endpoint;
    if (server.empty()) server = server_in(response.header("location").value_or(""));
    const std::string own_host = options.bucket + ".";  // of the virtual-host style
    if (const std::size_t at = server.find("://" + own_host); at != std::string::npos)
      server.erase(at + 3, own_host.size());
    if (!server.empty() && server != options.scheme + "://" + options.host)
      return {ErrorKind::kInvalidArgument,
              "the bucket '{}' is served at {}, not at {}://{}: give that with --s3-endpoint",
              options.bucket,
              server,
              options.scheme,
              options.host};
    if (is_redirection || code != "AuthorizationHeaderMalformed") return other_region();
    return {ErrorKind::kIo, "{} does not accept the signature of the region '{}'{}", options.host,
            options.region, detail.message.empty() ? "" : ": " + detail.message};
  }
  if (code == "NoSuchBucket")
    return {ErrorKind::kInvalidArgument,
            "there is no bucket '{}' at {}: make it first, or check its name and the endpoint",
            options.bucket, options.host};
  if (code == "InvalidBucketName")
    return {ErrorKind::kInvalidArgument, "'{}' can't be the name of a bucket", options.bucket};
  if (code == "RequestTimeTooSkewed") return skewed_clock(response);
  if (code == "InvalidAccessKeyId")
    return {ErrorKind::kIo,
            "{} does not know the access key: check AWS_ACCESS_KEY_ID, and that it is "
            "this server's",
            options.host};
  if (code == "SignatureDoesNotMatch")
    return {
        ErrorKind::kIo,
        "{} does not accept the signature: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the "
        "region '{}'",
        options.host, options.region};
  if (is_expired_key(code) || code == "InvalidToken")
    return {ErrorKind::kIo, "the session's keys for {} are no longer valid: get new ones",
            options.host};
  if (is_one_of(code, {"QuotaExceeded", "EntityTooLarge", "XMinioStorageFull"}) ||
      response.status == 507)
    return {ErrorKind::kNoSpace, "the bucket '{}' is full: {}", options.bucket,
            detail.message.empty() ? code : detail.message};
  if (code == "InvalidObjectState")
    return {
        ErrorKind::kIo,
        "the object is in an archive, by a rule of the bucket '{}': restore it there first, and "
        "let the rule leave out what convoy stores",
        options.bucket};
  if (response.status == 403 || code == "AccessDenied")
    return {
        ErrorKind::kIo,
        "{} denies it: the keys need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket "
        "for the bucket '{}'{}",
        options.host, options.bucket, detail.message.empty() ? "" : " (" + detail.message + ")"};
  if (code.empty())
    return {ErrorKind::kIo, "{} answers with HTTP status {}: is it an S3 server?", options.host,
            response.status};
  return {ErrorKind::kIo, "{} answers with {}{}", options.host, code,
          detail.message.empty() ? "" : ": " + detail.message};
}

}  // namespace convoy
