// The command line's way to the daemon: HTTP/1.0 (RFC 1945: a body ends with its connection, so
// there are no chunks to take apart) on its unix socket. Not by libcurl: loading it and what it
// stands on took most of the time that a short command needs.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace convoy {

using Json = nlohmann::ordered_json;

// A method and a path; queries are escaped here, so any text may be a value.
struct ApiCall {
  const char* method;
  const char* path;
  std::vector<std::pair<const char*, std::string>> query = {};
  Json body = nullptr;  // null: none
};

// Throws what the daemon answered as an Error of the same kind; kUnavailable, saying what to do, if
// no daemon answers. One object serves one thread.
class Client {
 public:
  explicit Client(std::string socket) : socket_(std::move(socket)) {}

  // The answer's JSON; null if it has no body.
  Json call(const ApiCall& call);

  // Starts a job and waits for its end, showing its progress on a terminal; returns its result.
  // Ctrl-C (SIGINT, or SIGTERM) cancels the job and waits until the daemon has cleaned up, then
  // kCancelled is thrown; a second one ends the process.
  Json run_job(const ApiCall& call);

 private:
  // Sends the call; the answer's body goes to `receive` piece by piece. Returns the HTTP status.
  long send(const ApiCall& call, const std::function<void(std::string_view)>& receive);

  std::string socket_;
};

}  // namespace convoy
