#include "objectstore/s3_answer.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <ctime>
#include <sstream>
#include <string_view>
#include <utility>

#include <curl/curl.h>
#include <fmt/format.h>
#include <pugixml.hpp>

#include "base/time.h"
#include "objectstore/s3_error.h"

namespace convoy {
namespace {

[[noreturn]] void ask_again(std::string why) {
  throw HttpFailure(HttpFailure::Kind::kTransient, std::move(why));
}

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Seconds, in listings as in headers, so that the two can be compared.
std::optional<Timestamp> parse_iso_time(std::string_view text) {
  const std::size_t end = text.find_first_of(".Z");
  if (end == std::string_view::npos) return std::nullopt;
  return parse_rfc3339(std::string(text.substr(0, end)) + ".000Z");
}

std::string to_text(const pugi::xml_node& node) {
  std::ostringstream text;
  node.print(text, "", pugi::format_raw);
  return text.str();
}

}  // namespace

bool is_success(const HttpClient::Response& response) {
  return response.status >= 200 && response.status < 300;
}

// All servers of S3 send an ETag with an object.
void check_is_object(const HttpClient::Response& response) {
  if (!response.header("etag")) ask_again("the answer is none of S3's");
}

// Without length and chunks, a connection that breaks can't be told from the end; with them,
// libcurl has looked.
void check_whole(const HttpClient::Response& response) {
  check_is_object(response);
  if (!response.header("content-length") && !response.header("transfer-encoding"))
    ask_again("the answer was cut off");
}

void check_range(const HttpClient::Response& response, std::uint64_t offset, std::size_t length) {
  check_whole(response);
  const std::string range = response.header("content-range").value_or("");
  const std::size_t slash = range.find('/');
  const std::size_t count = response.body.size();
  const auto total = slash == std::string::npos
                         ? std::nullopt
                         : parse_number<std::uint64_t>(std::string_view(range).substr(slash + 1));
  if (!total || *total <= offset || count != std::min<std::uint64_t>(length, *total - offset) ||
      !range.starts_with(fmt::format("bytes {}-{}/", offset, offset + count - 1)))
    ask_again("the answer is another range than was asked for");
}

void check_removed(const HttpClient::Response& response) {
  constexpr long kNoContent = 204;
  if (response.status != kNoContent && !response.header("x-amz-request-id"))
    ask_again("the answer is none of S3's");
}

bool is_behind_the_end(const HttpClient::Response& response) {
  return s3_error_code(response) == "InvalidRange" ||
         response.header("content-range").value_or("").starts_with("bytes */");
}

ObjectInfo parse_head(const std::string& key, const HttpClient::Response& response) {
  check_is_object(response);
  const auto size = parse_number<std::uint64_t>(response.header("content-length").value_or(""));
  const std::time_t time =
      ::curl_getdate(response.header("last-modified").value_or("").c_str(), nullptr);
  if (!size || time < 0) ask_again("the answer tells no size or time");
  return {.key = key,
          .size = *size,
          .modified = std::chrono::floor<std::chrono::milliseconds>(
              std::chrono::system_clock::from_time_t(time))};
}

ListPage parse_list_page(const HttpClient::Response& response) {
  pugi::xml_document document;
  const bool is_xml = document.load_buffer(response.body.data(), response.body.size());
  const pugi::xml_node result = document.child("ListBucketResult");
  if (!is_xml || !result.child("IsTruncated")) ask_again("the answer is no list of objects");
  ListPage page;
  for (const pugi::xml_node entry : result.children()) {
    const std::string_view kind = entry.name();
    if (kind == "CommonPrefixes")
      page.entries.push_back({.key = entry.child_value("Prefix"), .object = std::nullopt});
    if (kind != "Contents") continue;
    const std::string key = entry.child_value("Key");
    const auto size = parse_number<std::uint64_t>(entry.child_value("Size"));
    const auto time = parse_iso_time(entry.child_value("LastModified"));
    if (!size || !time) ask_again("the answer lists an object without size or time");
    page.entries.push_back(
        {.key = key, .object = ObjectInfo{.key = key, .size = *size, .modified = *time}});
  }
  if (std::string_view(result.child_value("IsTruncated")) == "true") {
    page.next = result.child_value("NextContinuationToken");
    if (page.next.empty()) ask_again("the answer ends a list of objects before its end");
  }
  return page;
}

std::string removal_request(const std::string& path, std::span<const std::string> keys) {
  pugi::xml_document request;
  pugi::xml_node list = request.append_child("Delete");
  list.append_child("Quiet").text() = "true";  // only what fails is named
  for (const std::string& key : keys)
    list.append_child("Object").append_child("Key").text() = (path + key).c_str();
  return to_text(request);
}

std::string removal_error(const HttpClient::Response& response) {
  pugi::xml_document document;
  const bool is_xml = document.load_buffer(response.body.data(), response.body.size());
  const pugi::xml_node result = document.child("DeleteResult");
  if (!is_xml || !result) ask_again("the answer is none of S3's");
  std::string first;
  for (const pugi::xml_node error : result.children("Error")) {
    const std::string code = error.child_value("Code");
    if (code == "NoSuchKey") continue;
    if (is_transient(response, code)) ask_again(code);
    if (first.empty()) first = to_text(error);
  }
  return first;
}

bool is_unknown_call(const HttpClient::Response& response) {
  if (is_success(response)) return false;
  const std::string code = s3_error_code(response);
  return response.status == 501 || response.status == 405 || code == "NotImplemented" ||
         code == "MethodNotAllowed";
}

}  // namespace convoy
