#include "objectstore/http_client.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <new>

#include <curl/curl.h>
#include <fmt/format.h>

namespace convoy {
namespace {

// Before the first use by any thread.
void start_libcurl() {
  static const CURLcode kStarted = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  if (kStarted != CURLE_OK) throw std::bad_alloc();
}

bool is_permanent(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
      return true;
    default:
      return false;
  }
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
  HeaderList(const HeaderList&) = delete;
  HeaderList& operator=(const HeaderList&) = delete;
  ~HeaderList() { ::curl_slist_free_all(list); }

  void add(const std::string& line) {
    curl_slist* const longer = ::curl_slist_append(list, line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    list = longer;
  }
};

// What libcurl's callbacks work on.
struct Transfer {
  const HttpClient::Request& request;
  RateLimit& upload;
  RateLimit& download;
  std::size_t sent = 0;
  HttpClient::Response response = {};
  bool too_large = false;
};

std::size_t send_body(char* out, std::size_t size, std::size_t count, void* transfer_pointer) {
  auto& transfer = *static_cast<Transfer*>(transfer_pointer);
  const auto rest = transfer.request.body.subspan(transfer.sent);
  const auto part = rest.first(std::min(rest.size(), size * count));
  transfer.upload.take(part.size());
  std::memcpy(out, part.data(), part.size());
  transfer.sent += part.size();
  return part.size();
}

// A connection that the server had closed meanwhile: libcurl sends the request again.
int rewind_body(void* transfer_pointer, curl_off_t offset, int origin) {
  auto& transfer = *static_cast<Transfer*>(transfer_pointer);
  if (origin != SEEK_SET || offset < 0 ||
      static_cast<std::uint64_t>(offset) > transfer.request.body.size())
    return CURL_SEEKFUNC_CANTSEEK;
  transfer.sent = static_cast<std::size_t>(offset);
  return CURL_SEEKFUNC_OK;
}

std::size_t take_header(char* data, std::size_t size, std::size_t count, void* transfer_pointer) {
  auto& transfer = *static_cast<Transfer*>(transfer_pointer);
  const std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) transfer.response = {};  // after "100 Continue"
  if (const std::size_t colon = line.find(':'); colon != std::string_view::npos)
    transfer.response.headers[lower_case(line.substr(0, colon))] = trimmed(line.substr(colon + 1));
  return line.size();
}

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* transfer_pointer) {
  auto& transfer = *static_cast<Transfer*>(transfer_pointer);
  const std::size_t length = size * count;
  transfer.download.take(length);
  auto& body = transfer.response.body;
  const std::size_t taken = std::min(length, transfer.request.max_response - body.size());
  const auto* const bytes = reinterpret_cast<const std::byte*>(data);
  body.insert(body.end(), bytes, bytes + taken);
  if (taken < length) transfer.too_large = true;
  return taken;  // less than there is ends the transfer
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
    HeaderList headers;
    for (const auto& [name, value] : request.headers)
      headers.add(value.empty() ? name + ";" : fmt::format("{}: {}", name, value));
    const bool has_body = request.method == "PUT" || request.method == "POST";
    // Packs are not sent before the server has taken what stands above them; else a refusal costs
    // as much as a success.
    constexpr std::size_t kLarge = 1U << 20U;
    if (request.body.size() < kLarge) headers.add("Expect:");
    if (has_body) headers.add("Content-Type:");

    std::array<char, CURL_ERROR_SIZE> reason = {};
    set(handle, CURLOPT_URL, request.url.c_str());
    set(handle, CURLOPT_PATH_AS_IS, 1L);
    set(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    set(handle, CURLOPT_NOSIGNAL, 1L);
    set(handle, CURLOPT_HTTPHEADER, headers.list);
    set(handle, CURLOPT_ERRORBUFFER, reason.data());
    set(handle, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout.count()));
    set(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(handle, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options_.stall_timeout.count()));
    set(handle, CURLOPT_BUFFERSIZE, 256L * 1024);
    set(handle, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
    if (!options_.ca_bundle.empty()) set(handle, CURLOPT_CAINFO, options_.ca_bundle.c_str());
    set(handle, CURLOPT_HEADERFUNCTION, &take_header);
    set(handle, CURLOPT_HEADERDATA, static_cast<void*>(&transfer));
    set(handle, CURLOPT_WRITEFUNCTION, &take_body);
    set(handle, CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    if (request.method == "HEAD") {
      set(handle, CURLOPT_NOBODY, 1L);
    } else if (has_body) {
      set(handle, CURLOPT_UPLOAD, 1L);
      set(handle, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      set(handle, CURLOPT_READFUNCTION, &send_body);
      set(handle, CURLOPT_READDATA, static_cast<void*>(&transfer));
      set(handle, CURLOPT_SEEKFUNCTION, &rewind_body);
      set(handle, CURLOPT_SEEKDATA, static_cast<void*>(&transfer));
      set(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    } else {
      set(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }

    const CURLcode code = ::curl_easy_perform(handle);
    long status = 0;
    ::curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    transfer.response.status = status;
    const bool is_success = status >= 200 && status < 300;
    if (transfer.too_large && is_success)
      throw HttpFailure(HttpFailure::Kind::kTooLarge,
                        fmt::format("the answer is longer than {} bytes", request.max_response));
    if (code != CURLE_OK && !transfer.too_large) {
      const std::string message = reason[0] != '\0' ? reason.data() : ::curl_easy_strerror(code);
      throw HttpFailure(
          is_permanent(code) ? HttpFailure::Kind::kPermanent : HttpFailure::Kind::kTransient,
          message);
    }
    return std::move(transfer.response);
  }

 private:
  struct Cleanup {
    void operator()(CURL* handle) const { ::curl_easy_cleanup(handle); }
  };
  const HttpOptions& options_;
  const std::unique_ptr<CURL, Cleanup> handle_;
};

// For the length of one request.
class HttpClient::Borrowed {
 public:
  explicit Borrowed(HttpClient& client) : client_(client) {
    std::unique_lock lock(client.mutex_);
    client.returned_.wait(lock, [&] { return client.in_use_ < client.options_.connections; });
    ++client.in_use_;
    if (client.idle_.empty()) return;
    connection_ = std::move(client.idle_.back());
    client.idle_.pop_back();
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  ~Borrowed() {
    const std::lock_guard lock(client_.mutex_);
    --client_.in_use_;
    if (connection_) client_.idle_.push_back(std::move(connection_));
    client_.returned_.notify_one();
  }

  Connection& connection() {
    if (!connection_) connection_ = std::make_unique<Connection>(client_.options_);
    return *connection_;
  }

 private:
  HttpClient& client_;
  std::unique_ptr<Connection> connection_;
};

HttpClient::HttpClient(HttpOptions options)
    : options_(std::move(options)),
      upload_(options_.upload_limit),
      download_(options_.download_limit) {
  start_libcurl();
}

HttpClient::~HttpClient() = default;

HttpClient::Response HttpClient::perform(const Request& request) {
  return Borrowed(*this).connection().perform(request, upload_, download_);
}

}  // namespace convoy
