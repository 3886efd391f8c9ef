// HTTP on one unix socket, by libmicrohttpd. It knows nothing of what is served.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "sys/unique_fd.h"

struct MHD_Daemon;

namespace convoy {

struct HttpRequest {
  std::string method;
  std::string path;
  std::map<std::string, std::string> query;
  std::string body;

  // The query parameter of this name; empty if it isn't given.
  std::string parameter(const std::string& name) const;
};

// A body that comes piece by piece: each call blocks until there is more and returns it; nothing at
// the end. The object is destroyed when the answer is complete or the client has left, whichever is
// first. A client that has left is only noticed when a piece is sent to it.
using HttpStream = std::function<std::optional<std::string>()>;

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpStream stream;  // in place of the body
};

// Listens on a unix socket. The file is removed with the object.
class ListeningSocket {
 public:
  // Makes the socket's directory if it is missing, and replaces a socket that nobody listens on.
  // Access: its owner and `group`, a name; if that is empty, our own group. Throws kBusy if
  // somebody listens on it, kInvalidArgument if the path is too long for a socket or another kind
  // of file, or if there is no such group.
  ListeningSocket(std::filesystem::path path, const std::string& group);
  ~ListeningSocket();
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;

  int fd() const { return fd_.get(); }

 private:
  std::filesystem::path path_;
  UniqueFd fd_;
};

class HttpServer {
 public:
  // Called for each request, each on a thread of its own. Must not throw.
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  // Serves at once. The socket must outlive the server.
  HttpServer(const ListeningSocket& socket, Handler handler);
  // Takes no new connections, and waits for the requests under way: whatever makes their streams
  // wait must have ended.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

 private:
  Handler handler_;
  std::unique_ptr<MHD_Daemon, void (*)(MHD_Daemon*)> daemon_;
};

}  // namespace convoy
