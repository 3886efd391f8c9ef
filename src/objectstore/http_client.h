// Requests to an HTTP server, by libcurl: connections are kept and used again.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "objectstore/rate_limit.h"

namespace convoy {

// Why no answer came, or not the whole of it.
class HttpFailure : public std::exception {
 public:
  enum class Kind {
    kTransient,    // the same request may succeed later
    kPermanent,    // as long as nobody changes something
    kCertificate,  // permanent: the server can't show that it is who it should be
    kTooLarge,     // the answer is longer than the caller takes
  };
  HttpFailure(Kind kind, std::string message, long status = 0)
      : kind_(kind), message_(std::move(message)), status_(status) {}

  Kind kind() const { return kind_; }
  long status() const { return status_; }  // 0: there was no answer
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Kind kind_;
  std::string message_;
  long status_;
};

struct HttpOptions {
  unsigned connections = 16;  // at once; further requests wait
  std::chrono::milliseconds connect_timeout{10'000};
  // A transfer that moves less than a KiB a second (or what a limit leaves of that) for so long is
  // given up.
  std::chrono::seconds stall_timeout{30};
  std::string ca_bundle = {};      // a file of certificates; empty: the system's
  std::uint64_t upload_limit = 0;  // bytes a second, all connections together; 0: none
  std::uint64_t download_limit = 0;
  // Which hosts are not asked by way of the proxy that http_proxy and its like name; "*": none.
  std::string no_proxy = {};

  bool operator==(const HttpOptions&) const = default;
};

// Thread-safe; each request waits for its answer on the caller's thread.
class HttpClient {
 public:
  struct Request {
    std::string method;
    std::string url;
    std::map<std::string, std::string> headers = {};
    std::span<const std::byte> body = {};
    // A body that is longer is refused; that of an answer that is no success is cut off there.
    std::size_t max_response = 0;
    unsigned patience = 1;  // so many times the stall timeout
    // When this is requested, the request ends within a second or so, as kTransient.
    std::stop_token stop = {};
  };
  struct Response {
    long status = 0;
    std::map<std::string, std::string> headers = {};  // names in lower case
    std::vector<std::byte> body = {};

    // Nothing if there is no such header.
    std::optional<std::string> header(const std::string& name) const;
  };

  explicit HttpClient(HttpOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // The answer to GET, HEAD, PUT, POST or DELETE, whatever its status; redirections are not
  // followed. `make` is called when a connection is free, which may take a while: large bodies (the
  // request's or the answer's will have `size` bytes) leave one to all that is small, if there is
  // more than one. The wait ends as a request does when `stop` is requested. Throws HttpFailure,
  // and what `make` throws.
  Response perform(const std::function<Request()>& make, std::size_t size = 0,
                   const std::stop_token& stop = {});

 private:
  class Connection;
  class Borrowed;

  const HttpOptions options_;
  RateLimit upload_;
  RateLimit download_;

  std::mutex mutex_;
  std::condition_variable_any returned_;
  unsigned in_use_ = 0;
  unsigned in_use_by_large_ = 0;
  std::vector<std::unique_ptr<Connection>> idle_;  // the one used last at the end
};

}  // namespace convoy
