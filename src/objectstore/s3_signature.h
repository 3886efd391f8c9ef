// AWS Signature Version 4, as the API of S3 takes it in a header: "Authenticating Requests: Using
// the Authorization Header" in Amazon's S3 API reference.
//
// libcurl has a signer of its own; that of 7.88, which Debian 12 has, signs a header that it does
// not send, takes the query as it comes, and sorts some headers wrongly.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/time.h"

namespace convoy {

struct S3Credentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // empty: none

  bool operator==(const S3Credentials&) const = default;
};

// A request as it will be sent.
struct S3Request {
  std::string method;
  std::string path = "/";                           // encoded by encode_uri
  std::map<std::string, std::string> query = {};    // not encoded
  std::map<std::string, std::string> headers = {};  // names in lower case, among them "host"
  Digest payload = {};                              // of the body
};

// RFC 3986: all bytes but unreserved ones, and '/' where it is told to be kept, become %XX.
enum class Slash { kKept, kEncoded };
std::string encode_uri(std::string_view text, Slash slash);

// The query of the URL: "a=b&c=", encoded and sorted as the signature wants it.
std::string encode_query(const std::map<std::string, std::string>& query);

// Adds the headers that are signed besides (x-amz-date, x-amz-content-sha256, x-amz-security-token)
// and "authorization".
void sign(S3Request& request, const S3Credentials& credentials, std::string_view region,
          Timestamp time);

// The parts of it, for tests.
std::string canonical_request(const S3Request& request);
std::string string_to_sign(const S3Request& request, std::string_view region, Timestamp time);

}  // namespace convoy
