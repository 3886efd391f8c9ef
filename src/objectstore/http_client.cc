#include "objectstore/http_client.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <new>
#include <utility>

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/format.h>

namespace convoy {
namespace {

// Bodies that take a slow line minutes. A lease that waits for them is taken for a dead host's.
constexpr std::size_t kLarge = 1U << 20U;

// Before the first use by any thread.
void start_libcurl() {
  static const CURLcode started = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  if (started != CURLE_OK) throw std::bad_alloc();
}

HttpFailure::Kind kind_of(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return HttpFailure::Kind::kPermanent;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return HttpFailure::Kind::kCertificate;
    default:
      return HttpFailure::Kind::kTransient;
  }
}

// Bytes a second below which a transfer counts as stalled: far below what each connection has left
// of a limit.
long stalled_speed(const HttpOptions& options) {
  std::uint64_t speed = 1024;
  for (const std::uint64_t limit : {options.upload_limit, options.download_limit}) {
    if (limit != 0) speed = std::min(speed, limit / options.connections / 4);
  }
  return static_cast<long>(std::max<std::uint64_t>(speed, 1));
}

// As little as is taken at once where there is a limit, so that none sleeps long before it reads.
long buffer_size(const RateLimit& limit) {
  constexpr std::size_t kLargest = 256UL * 1024;
  constexpr std::size_t kLeast = 1024;  // libcurl's
  return static_cast<long>(std::max(limit.piece(kLargest), kLeast));
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

struct HeaderList {
  curl_slist* list = nullptr;

  HeaderList() = default;
  HeaderList(HeaderList&& other) noexcept : list(std::exchange(other.list, nullptr)) {}
  HeaderList(const HeaderList&) = delete;
  HeaderList& operator=(const HeaderList&) = delete;
  HeaderList& operator=(HeaderList&&) = delete;
  ~HeaderList() { ::curl_slist_free_all(list); }

  void add(const std::string& line) {
    curl_slist* const longer = ::curl_slist_append(list, line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    list = longer;
  }
};

// What libcurl's callbacks work on. They are called from C, so they catch what is thrown.
struct Transfer {
  const HttpClient::Request& request;
  RateLimit& upload;
  RateLimit& download;
  std::size_t sent = 0;
  HttpClient::Response response = {};
  bool too_large = false;
  std::exception_ptr thrown = nullptr;

  // `otherwise` after an exception.
  template <typename Action>
  auto guard(Action&& action, decltype(action()) otherwise) noexcept {
    try {
      return action();
    } catch (...) {
      thrown = std::current_exception();
      return otherwise;
    }
  }
};

std::size_t send_body(char* out, std::size_t size, std::size_t count, void* pointer) {
  auto& transfer = *static_cast<Transfer*>(pointer);
  return transfer.guard(
      [&] {
        const auto rest = transfer.request.body.subspan(transfer.sent);
        // A server ends connections on which nothing comes: with a limit, often and little.
        const auto part = rest.first(transfer.upload.piece(std::min(rest.size(), size * count)));
        transfer.upload.take(part.size());
        std::memcpy(out, part.data(), part.size());
        transfer.sent += part.size();
        return part.size();
      },
      std::size_t{CURL_READFUNC_ABORT});
}

// A connection that the server had closed meanwhile: libcurl sends the request again.
int rewind_body(void* pointer, curl_off_t offset, int origin) {
  auto& transfer = *static_cast<Transfer*>(pointer);
  if (origin != SEEK_SET || offset < 0 ||
      static_cast<std::uint64_t>(offset) > transfer.request.body.size())
    return CURL_SEEKFUNC_CANTSEEK;
  transfer.sent = static_cast<std::size_t>(offset);
  return CURL_SEEKFUNC_OK;
}

// NOLINTNEXTLINE(readability-non-const-parameter): libcurl's type
std::size_t take_header(char* data, std::size_t size, std::size_t count, void* pointer) {
  auto& transfer = *static_cast<Transfer*>(pointer);
  return transfer.guard(
      [&] {
        const std::string_view line(data, size * count);
        if (line.starts_with("HTTP/")) transfer.response = {};  // after "100 Continue"
        if (const std::size_t colon = line.find(':'); colon != std::string_view::npos)
          transfer.response.headers[lower_case(line.substr(0, colon))] =
              trimmed(line.substr(colon + 1));
        return line.size();
      },
      std::size_t{0});
}

// NOLINTNEXTLINE(readability-non-const-parameter): libcurl's type
std::size_t take_body(char* data, std::size_t size, std::size_t count, void* pointer) {
  auto& transfer = *static_cast<Transfer*>(pointer);
  return transfer.guard(
      [&] {
        const std::size_t length = size * count;
        transfer.download.take(length);
        auto& body = transfer.response.body;
        const std::size_t taken = std::min(length, transfer.request.max_response - body.size());
        const auto* const bytes = reinterpret_cast<const std::byte*>(data);
        body.insert(body.end(), bytes, bytes + taken);
        if (taken < length) transfer.too_large = true;
        return taken;  // less than there is ends the transfer
      },
      std::size_t{0});
}

// Called at least once a second.
int end_if_stopped(void* pointer, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const Transfer*>(pointer)->request.stop.stop_requested() ? 1 : 0;
}

// The daemon's children have no use for it, and would keep it open.
int keep_from_children(void*, curl_socket_t socket, curlsocktype) {
  return ::fcntl(socket, F_SETFD, FD_CLOEXEC) == 0 ? CURL_SOCKOPT_OK : CURL_SOCKOPT_ERROR;
}

template <typename Value>
void set(CURL* handle, CURLoption option, Value value) {
  if (::curl_easy_setopt(handle, option, value) != CURLE_OK) throw std::bad_alloc();
}

}  // namespace

std::optional<std::string> HttpClient::Response::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::nullopt : std::optional(found->second);
}

// A handle of libcurl's, which keeps its connection.
class HttpClient::Connection {
 public:
  explicit Connection(const HttpOptions& options) : options_(options), handle_(::curl_easy_init()) {
    if (!handle_) throw std::bad_alloc();
  }

  Response perform(const Request& request, RateLimit& upload, RateLimit& download) {
    CURL* const handle = handle_.get();
    ::curl_easy_reset(handle);  // but for the connection
    Transfer transfer{.request = request, .upload = upload, .download = download};
    const HeaderList headers = headers_of(request);
    reason_.front() = '\0';
    set_options(request, headers, transfer);
    const CURLcode code = ::curl_easy_perform(handle);
    if (transfer.thrown) std::rethrow_exception(transfer.thrown);
    long& status = transfer.response.status;
    ::curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    const bool is_success = status >= 200 && status < 300;
    if (transfer.too_large && is_success)
      throw HttpFailure(HttpFailure::Kind::kTooLarge,
                        fmt::format("the answer is longer than {} bytes", request.max_response),
                        status);
    if (code != CURLE_OK && !transfer.too_large) {
      const std::string message =
          reason_.front() != '\0' ? reason_.data() : ::curl_easy_strerror(code);
      throw HttpFailure(kind_of(code), message);
    }
    return std::move(transfer.response);
  }

 private:
  static HeaderList headers_of(const Request& request) {
    HeaderList headers;
    for (const auto& [name, value] : request.headers)
      headers.add(value.empty() ? name + ";" : fmt::format("{}: {}", name, value));
    // Packs are not sent before the server has taken what stands above them; else a refusal costs
    // as much as a success.
    if (request.body.size() < kLarge) headers.add("Expect:");
    return headers;
  }

  void set_options(const Request& request, const HeaderList& headers, Transfer& transfer) {
    CURL* const handle = handle_.get();
    set(handle, CURLOPT_URL, request.url.c_str());
    set(handle, CURLOPT_PATH_AS_IS, 1L);
    set(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    // One request at a time for each connection gains nothing by HTTP/2.
    set(handle, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    set(handle, CURLOPT_NOSIGNAL, 1L);
    set(handle, CURLOPT_HTTPHEADER, headers.list);
    set(handle, CURLOPT_ERRORBUFFER, reason_.data());
    set(handle, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout.count()));
    set(handle, CURLOPT_LOW_SPEED_LIMIT, stalled_speed(options_));
    set(handle, CURLOPT_LOW_SPEED_TIME,
        static_cast<long>(options_.stall_timeout.count()) * request.patience);
    set(handle, CURLOPT_BUFFERSIZE, buffer_size(transfer.download));
    set(handle, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
    set(handle, CURLOPT_SOCKOPTFUNCTION, &keep_from_children);
    if (!options_.no_proxy.empty()) set(handle, CURLOPT_NOPROXY, options_.no_proxy.c_str());
    if (!options_.ca_bundle.empty()) {
      set(handle, CURLOPT_CAINFO, options_.ca_bundle.c_str());
      set(handle, CURLOPT_CAPATH, static_cast<const char*>(nullptr));  // not the system's besides
    }
    set(handle, CURLOPT_HEADERFUNCTION, &take_header);
    set(handle, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
    set(handle, CURLOPT_WRITEFUNCTION, &take_body);
    set(handle, CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    if (request.stop.stop_possible()) {
      set(handle, CURLOPT_NOPROGRESS, 0L);
      set(handle, CURLOPT_XFERINFOFUNCTION, &end_if_stopped);
      set(handle, CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
    }
    if (request.method == "HEAD") return set(handle, CURLOPT_NOBODY, 1L);
    if (request.method == "PUT" || request.method == "POST") {
      set(handle, CURLOPT_UPLOAD, 1L);
      set(handle, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      set(handle, CURLOPT_READFUNCTION, &send_body);
      set(handle, CURLOPT_READDATA, static_cast<void*>(&transfer));
      set(handle, CURLOPT_SEEKFUNCTION, &rewind_body);
      set(handle, CURLOPT_SEEKDATA, static_cast<void*>(&transfer));
    }
    set(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }

  struct Cleanup {
    void operator()(CURL* handle) const { ::curl_easy_cleanup(handle); }
  };
  const HttpOptions& options_;
  std::array<char, CURL_ERROR_SIZE> reason_ = {};  // libcurl's, as long as the handle lives
  const std::unique_ptr<CURL, Cleanup> handle_;
};

// For the length of one request.
class HttpClient::Borrowed {
 public:
  Borrowed(HttpClient& client, bool is_large, const std::stop_token& stop)
      : client_(client), is_large_(is_large) {
    const unsigned all = client.options_.connections;
    const unsigned for_large = std::max(all, 2U) - 1;
    std::unique_lock lock(client.mutex_);
    const bool is_free = client.returned_.wait(lock, stop, [&] {
      return client.in_use_ < all && (!is_large || client.in_use_by_large_ < for_large);
    });
    if (!is_free) throw HttpFailure(HttpFailure::Kind::kTransient, "it was cancelled");
    ++client.in_use_;
    if (is_large) ++client.in_use_by_large_;
    if (client.idle_.empty()) return;
    connection_ = std::move(client.idle_.back());
    client.idle_.pop_back();
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  ~Borrowed() {
    const std::lock_guard lock(client_.mutex_);
    --client_.in_use_;
    if (is_large_) --client_.in_use_by_large_;
    if (connection_) client_.idle_.push_back(std::move(connection_));
    client_.returned_.notify_all();
  }

  Connection& connection() {
    if (!connection_) connection_ = std::make_unique<Connection>(client_.options_);
    return *connection_;
  }

 private:
  HttpClient& client_;
  const bool is_large_;
  std::unique_ptr<Connection> connection_;
};

HttpClient::HttpClient(HttpOptions options)
    : options_(std::move(options)),
      upload_(options_.upload_limit),
      download_(options_.download_limit) {
  idle_.reserve(options_.connections);  // so that to give one back can't fail
  start_libcurl();
}

HttpClient::~HttpClient() = default;

HttpClient::Response HttpClient::perform(const std::function<Request()>& make, std::size_t size,
                                         const std::stop_token& stop) {
  Borrowed borrowed(*this, size >= kLarge, stop);
  return borrowed.connection().perform(make(), upload_, download_);
}

}  // namespace convoy
