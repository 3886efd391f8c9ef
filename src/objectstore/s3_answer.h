// The forms of S3's requests and answers, and what makes an answer one that can be believed.
// ("Amazon S3 API Reference": GetObject, HeadObject, ListObjectsV2, DeleteObjects)
//
// What is no such answer is thrown as a transient HttpFailure: something on the way may have put a
// page of its own in the place of the server's, or cut it off, so the server is asked again.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "objectstore/http_client.h"
#include "objectstore/object_store.h"

namespace convoy {

bool is_success(const HttpClient::Response& response);

// Throws unless it comes from a server that has the object, or has taken it.
void check_is_object(const HttpClient::Response& response);
// Throws unless it is an object and has all of its body.
void check_whole(const HttpClient::Response& response);
// Throws unless the body, of an answer of status 206, is what the object has of `length` bytes from
// `offset` on.
void check_range(const HttpClient::Response& response, std::uint64_t offset, std::size_t length);

// Throws unless it comes from a server of S3, which has removed the object.
void check_removed(const HttpClient::Response& response);
// Whether status 416 is the server's, and says that the object ends before.
bool is_behind_the_end(const HttpClient::Response& response);

// Size and time of the object `key`, from an answer to HEAD.
ObjectInfo parse_head(const std::string& key, const HttpClient::Response& response);

struct ListPage {
  struct Entry {
    std::string key;
    std::optional<ObjectInfo> object;  // nothing for a directory
  };
  std::vector<Entry> entries;
  std::string next;  // token of the next page; empty after the last
};
ListPage parse_list_page(const HttpClient::Response& response);

// As many as DeleteObjects takes.
inline constexpr std::size_t kKeysPerRemoval = 1000;
// The body of a DeleteObjects, for keys with `path` before each.
std::string removal_request(const std::string& path, std::span<const std::string> keys);
// The XML of the error for the first object that is still there; empty if none is. That one was not
// there is no error.
std::string removal_error(const HttpClient::Response& response);
// The server does not know DeleteObjects, which is a later addition to S3.
bool is_unknown_call(const HttpClient::Response& response);

}  // namespace convoy
