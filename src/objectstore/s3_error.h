// What a server of S3 says went wrong, in words on which users can act. ("Error responses", Amazon
// S3 API Reference)
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "objectstore/http_client.h"
#include "objectstore/s3_options.h"

namespace convoy {

// The code of an error's XML, such as "NoSuchKey"; empty if there is none, as in all answers to
// HEAD.
std::string s3_error_code(const HttpClient::Response& response);

// Whether the same request may succeed in a moment.
bool is_transient(const HttpClient::Response& response, const std::string& code);

// Whether the keys have expired, and others may be had.
bool is_expired_key(const std::string& code);

// The scheme and host, such as "https://host:port", of what a header "Location" says; empty if it
// says none.
std::string server_in(const std::string& location);

// Of an answer that is no success and will stay so.
Error s3_error(const HttpClient::Response& response, const S3Options& options);

}  // namespace convoy
