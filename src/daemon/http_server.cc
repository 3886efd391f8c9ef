#include "daemon/http_server.h"

#include <cerrno>
#include <cstdarg>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <microhttpd.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/limits.h"
#include "daemon/request_fields.h"
#include "sys/file.h"

namespace convoy {
namespace {

// Of a client that sends nothing of a request, in seconds: it keeps one of the connections from
// others.
constexpr unsigned kIdleTimeout = 60;

// --- Socket ---

sockaddr_un address_of(const std::filesystem::path& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path) {
    throw Error(ErrorKind::kInvalidArgument, "the socket's path {} is longer than {} characters",
                path.native(), sizeof address.sun_path - 1);
  }
  path.native().copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

gid_t group_id(const std::string& name) {
  // Before other threads exist, so the answer in static memory is ours.
  const group* const found = ::getgrnam(name.c_str());  // NOLINT(concurrency-mt-unsafe)
  if (found == nullptr) {
    throw Error(ErrorKind::kInvalidArgument,
                "--socket-group {}: there is no such group; make it with groupadd", name);
  }
  return found->gr_gid;
}

UniqueFd new_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) throw system_error(errno, "socket");
  return fd;
}

void remove_stale_socket(const std::filesystem::path& path, const sockaddr_un& address) {
  struct stat info = {};
  if (::lstat(path.c_str(), &info) != 0) return;
  if (!S_ISSOCK(info.st_mode)) {
    throw Error(ErrorKind::kInvalidArgument, "{} exists and is no socket; give another --socket",
                path.native());
  }
  const UniqueFd probe = new_socket();
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    throw Error(ErrorKind::kBusy, "another daemon listens on {}; give this one another --socket",
                path.native());
  }
  ::unlink(path.c_str());
}

// --- Requests ---

// What libmicrohttpd calls for one request, until its answer is complete.
struct Exchange {
  HttpRequest request;
  bool too_large = false;
};

struct Streaming {
  HttpStream next;
  std::string piece;
  std::size_t sent = 0;  // of the piece
};

// Nothing may be thrown into libmicrohttpd, not even that there is no memory.
ssize_t read_stream(void* context, std::uint64_t, char* buffer, std::size_t size) try {
  auto& streaming = *static_cast<Streaming*>(context);
  while (streaming.sent == streaming.piece.size()) {
    std::optional<std::string> piece = streaming.next();
    if (!piece) return MHD_CONTENT_READER_END_OF_STREAM;
    streaming.piece = std::move(*piece);
    streaming.sent = 0;
  }
  const std::size_t count = streaming.piece.copy(buffer, size, streaming.sent);
  streaming.sent += count;
  return static_cast<ssize_t>(count);
} catch (const std::exception& error) {
  spdlog::error("an answer is cut off: {}", error.what());
  return MHD_CONTENT_READER_END_WITH_ERROR;
}

void free_stream(void* context) {
  delete static_cast<Streaming*>(context);
}

MHD_Result add_parameter(void* context, MHD_ValueKind, const char* key, const char* value) try {
  static_cast<HttpRequest*>(context)->query[key] = value == nullptr ? "" : value;
  return MHD_YES;
} catch (const std::exception&) {
  return MHD_NO;
}

MHD_Result answer(MHD_Connection* connection, HttpResponse response) {
  MHD_Response* reply = nullptr;
  if (response.stream) {
    reply = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, &read_stream,
                                              new Streaming{std::move(response.stream), "", 0},
                                              &free_stream);
  } else {
    reply = MHD_create_response_from_buffer(response.body.size(), response.body.data(),
                                            MHD_RESPMEM_MUST_COPY);
  }
  if (reply == nullptr) return MHD_NO;
  MHD_add_response_header(reply, MHD_HTTP_HEADER_CONTENT_TYPE, response.content_type.c_str());
  const MHD_Result result =
      MHD_queue_response(connection, static_cast<unsigned>(response.status), reply);
  MHD_destroy_response(reply);
  return result;
}

MHD_Result on_request(void* context, MHD_Connection* connection, const char* url,
                      const char* method, const char*, const char* upload, std::size_t* upload_size,
                      void** state) try {
  // Called once for the head of a request, then for each piece of its body, then for its end.
  if (*state == nullptr) {
    auto* const exchange = new Exchange;
    *state = exchange;
    exchange->request.method = method;
    exchange->request.path = url;
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, &add_parameter,
                              &exchange->request);
    return MHD_YES;
  }
  auto& exchange = *static_cast<Exchange*>(*state);
  if (*upload_size > 0) {
    std::string& body = exchange.request.body;
    if (body.size() + *upload_size > kMaxRequestBody) {
      exchange.too_large = true;
    } else {
      body.append(upload, *upload_size);
    }
    *upload_size = 0;
    return MHD_YES;
  }
  if (exchange.too_large)
    return answer(connection,
                  {413,
                   "application/json",
                   error_text(Error(ErrorKind::kInvalidArgument,
                                    "the request is larger than {} bytes", kMaxRequestBody)) +
                       "\n",
                   {}});
  // Neither what it takes to answer counts, nor what the client takes to read: one that is stopped
  // for a while (Ctrl-Z) does not lose its job.
  MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0U);
  return answer(connection, (*static_cast<HttpServer::Handler*>(context))(exchange.request));
} catch (const std::exception& error) {
  spdlog::error("{} {} is not answered: {}", method, url, error.what());
  return MHD_NO;  // the connection is closed
}

void on_completed(void*, MHD_Connection* connection, void** state, MHD_RequestTerminationCode) {
  MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, kIdleTimeout);
  delete static_cast<Exchange*>(*state);
  *state = nullptr;
}

__attribute__((format(printf, 2, 0))) void log_message(void*, const char* format,
                                                       va_list arguments) {
  std::array<char, 512> line;
  static_cast<void>(std::vsnprintf(line.data(), line.size(), format, arguments));
  spdlog::debug("libmicrohttpd: {}", line.data());
}

}  // namespace

std::string HttpRequest::parameter(const std::string& name) const {
  const auto found = query.find(name);
  return found == query.end() ? "" : found->second;
}

ListeningSocket::ListeningSocket(std::filesystem::path path, const std::string& group)
    : path_(std::move(path)), fd_(new_socket()) {
  const gid_t gid = group.empty() ? ::getegid() : group_id(group);
  const sockaddr_un address = address_of(path_);
  if (path_.has_parent_path()) make_directories(path_.parent_path());
  remove_stale_socket(path_, address);
  // From the first moment on: who may write to the socket is root on this host.
  const mode_t before = ::umask(0117);
  const int result = ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::umask(before);
  if (result != 0)
    throw system_error(error, fmt::format("can't make the socket {}", path_.native()));
  if (::lchown(path_.c_str(), static_cast<uid_t>(-1), gid) != 0)
    throw system_error(errno, fmt::format("can't give the socket to the group {}", group));
  if (::listen(fd_.get(), static_cast<int>(kMaxConnections)) != 0)
    throw system_error(errno, "listen");
}

ListeningSocket::~ListeningSocket() {
  ::unlink(path_.c_str());
}

HttpServer::HttpServer(const ListeningSocket& socket, Handler handler)
    : handler_(std::move(handler)), daemon_(nullptr, &MHD_stop_daemon) {
  daemon_.reset(MHD_start_daemon(
      MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
          MHD_USE_ERROR_LOG,
      0, nullptr, nullptr, &on_request, &handler_, MHD_OPTION_EXTERNAL_LOGGER, &log_message,
      nullptr, MHD_OPTION_LISTEN_SOCKET, ::fcntl(socket.fd(), F_DUPFD_CLOEXEC, 0),
      MHD_OPTION_CONNECTION_LIMIT, kMaxConnections, MHD_OPTION_CONNECTION_TIMEOUT, kIdleTimeout,
      MHD_OPTION_NOTIFY_COMPLETED, &on_completed, nullptr, MHD_OPTION_END));
  if (!daemon_) throw Error(ErrorKind::kInternal, "libmicrohttpd can't serve on the socket");
}

HttpServer::~HttpServer() = default;

}  // namespace convoy
