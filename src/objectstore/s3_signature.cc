#include "objectstore/s3_signature.h"

#include <algorithm>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <openssl/hmac.h>

#include "base/bytes.h"

namespace convoy {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";

std::string date_time(Timestamp time) {
  return fmt::format("{:%Y%m%dT%H%M%SZ}", std::chrono::floor<std::chrono::seconds>(time));
}

std::string date(Timestamp time) {
  return date_time(time).substr(0, 8);
}

std::string scope(std::string_view region, Timestamp time) {
  return fmt::format("{}/{}/s3/aws4_request", date(time), region);
}

std::string signed_headers(const S3Request& request) {
  std::string names;
  for (const auto& [name, value] : request.headers) {
    if (!names.empty()) names += ';';
    names += name;
  }
  return names;
}

Digest hmac(std::span<const std::uint8_t> key, std::string_view text) {
  Digest digest = {};
  unsigned size = digest.size();
  ::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &size);
  return digest;
}

std::string signature(const S3Request& request, std::string_view secret_key,
                      std::string_view region, Timestamp time) {
  const std::string first = fmt::format("AWS4{}", secret_key);
  Digest key =
      hmac({reinterpret_cast<const std::uint8_t*>(first.data()), first.size()}, date(time));
  for (const std::string_view part :
       {region, std::string_view("s3"), std::string_view("aws4_request")})
    key = hmac(key, part);
  return to_hex(hmac(key, string_to_sign(request, region, time)));
}

}  // namespace

std::string encode_uri(std::string_view text, Slash slash) {
  constexpr std::string_view kUnreservedMarks = "-._~";
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       kUnreservedMarks.find(c) != std::string_view::npos ||
                       (c == '/' && slash == Slash::kKept);
    if (plain)
      encoded += c;
    else
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

std::string encode_query(const std::map<std::string, std::string>& query) {
  // Sorted by what is encoded; names are plain, so they sort alike.
  std::string encoded;
  for (const auto& [name, value] : query) {
    if (!encoded.empty()) encoded += '&';
    encoded += encode_uri(name, Slash::kEncoded) + '=' + encode_uri(value, Slash::kEncoded);
  }
  return encoded;
}

std::string canonical_request(const S3Request& request) {
  std::string headers;
  for (const auto& [name, value] : request.headers) headers += fmt::format("{}:{}\n", name, value);
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, request.path,
                     encode_query(request.query), headers, signed_headers(request),
                     to_hex(request.payload));
}

std::string string_to_sign(const S3Request& request, std::string_view region, Timestamp time) {
  return fmt::format("{}\n{}\n{}\n{}", kAlgorithm, date_time(time), scope(region, time),
                     to_hex(sha256(as_bytes(canonical_request(request)))));
}

void sign(S3Request& request, const S3Credentials& credentials, std::string_view region,
          Timestamp time) {
  request.headers["x-amz-date"] = date_time(time);
  request.headers["x-amz-content-sha256"] = to_hex(request.payload);
  if (!credentials.session_token.empty())
    request.headers["x-amz-security-token"] = credentials.session_token;
  request.headers["authorization"] =
      fmt::format("{} Credential={}/{},SignedHeaders={},Signature={}", kAlgorithm,
                  credentials.access_key, scope(region, time), signed_headers(request),
                  signature(request, credentials.secret_key, region, time));
}

}  // namespace convoy
