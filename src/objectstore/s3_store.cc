#include "objectstore/s3_store.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <random>
#include <utility>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <spdlog/spdlog.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/time.h"
#include "objectstore/s3_answer.h"
#include "objectstore/s3_error.h"

namespace convoy {
namespace {

// With pauses that double, up to the longest: about a minute in all.
constexpr unsigned kTries = 9;
constexpr std::chrono::milliseconds kLongestPause{15'000};
// Later than this only the first few tries begin: on a slow line each of them may take longer.
constexpr std::chrono::seconds kLongestEffort{60};
constexpr unsigned kTriesHoweverLong = 4;

// Below this, classes that cost less by the byte cost more by the object, and leases and plans live
// for minutes.
constexpr std::size_t kLeastOfAClass = 128UL * 1024;

// Whoever tidies up sends leases, plans and notes, and no packs.
constexpr std::size_t kMostToTidyUp = 1024UL * 1024;

// XML of errors, and of a page of 1000 objects with keys of at most 1024 bytes.
constexpr std::size_t kMaxErrorBody = 64UL * 1024;
constexpr std::size_t kMaxListPage = 4UL * 1024 * 1024;

Error cancelled(const std::string& host) {
  return {ErrorKind::kCancelled, "a request to {} was cancelled", host};
}

std::string md5(std::span<const std::byte> body) {
  std::array<unsigned char, 16> digest = {};
  unsigned size = digest.size();
  if (EVP_Digest(body.data(), body.size(), digest.data(), &size, EVP_md5(), nullptr) != 1)
    throw Error(ErrorKind::kInternal, "OpenSSL can't compute MD5");
  std::array<unsigned char, 25> text = {};
  const int length = EVP_EncodeBlock(text.data(), digest.data(), digest.size());
  return {reinterpret_cast<const char*>(text.data()), static_cast<std::size_t>(length)};
}

}  // namespace

S3Store::S3Store(S3Options options, Environment environment, std::shared_ptr<HttpClient> client,
                 std::stop_token stop, std::chrono::milliseconds pause)
    : options_(std::move(options)),
      stop_(std::move(stop)),
      pause_(pause),
      credentials_(std::move(environment), options_.profile),
      client_(client ? std::move(client) : std::make_shared<HttpClient>(options_.http)) {}

std::string S3Store::host() const {
  return options_.addressing == S3Options::Addressing::kVirtualHost
             ? fmt::format("{}.{}", options_.bucket, options_.host)
             : options_.host;
}

std::string S3Store::path_of(const Call& call) const {
  std::string path = "/";
  if (options_.addressing == S3Options::Addressing::kPath) path += options_.bucket + "/";
  if (!call.key.empty()) path += options_.path + call.key;
  return encode_uri(path, Slash::kKept);
}

HttpClient::Request S3Store::signed_request(Call& call) {
  S3Request request{.method = call.method,
                    .path = path_of(call),
                    .query = call.query,
                    .headers = call.headers,
                    .payload = sha256(call.body)};
  request.headers["host"] = call.host;
  call.credentials = credentials_.get();
  sign(request, call.credentials, options_.region, now());
  std::string url = fmt::format("{}://{}{}", options_.scheme, call.host, request.path);
  if (!request.query.empty()) url += "?" + encode_query(request.query);
  return {.method = call.method,
          .url = std::move(url),
          .headers = std::move(request.headers),
          .body = call.body,
          .max_response = std::max(call.max_response, kMaxErrorBody),
          // A server says nothing while it removes a thousand objects, one after the other.
          .patience = call.method == "POST" ? 2U : 1U,
          .stop = call.stop};
}

HttpClient::Response S3Store::ask(Call call, const Check& check) {
  const auto begin = std::chrono::steady_clock::now();
  call.host = host();
  const bool is_tidying_up = stop_.stop_requested();
  if (!is_tidying_up)
    call.stop = stop_;
  else if (call.body.size() > kMostToTidyUp)
    throw cancelled(call.host);
  for (unsigned tries = 1;; ++tries) {
    std::string why;
    try {
      HttpClient::Response response = client_->perform(
          [&] { return signed_request(call); }, std::max(call.body.size(), call.part), call.stop);
      why = why_not(response, call);
      if (why.empty()) {
        if (check && is_success(response)) check(response);
        return response;
      }
    } catch (const HttpFailure& failure) {
      if (failure.kind() == HttpFailure::Kind::kPermanent)
        throw Error(ErrorKind::kIo, "{}: {}", call.host, failure.message());
      if (failure.kind() == HttpFailure::Kind::kCertificate)
        throw Error(ErrorKind::kIo,
                    "{}: {}: if its certificate is of an authority of your own, name that one's in "
                    "s3.conf (ca-bundle) or AWS_CA_BUNDLE",
                    call.host, failure.message());
      if (failure.kind() == HttpFailure::Kind::kTooLarge) refuse_too_large(failure, call);
      why = failure.message();
    }
    if (call.stop.stop_requested()) throw cancelled(call.host);
    if (is_tidying_up)
      throw Error(ErrorKind::kCancelled, "{}: {} (after a cancellation, so tried once)", call.host,
                  why);
    if (tries == kTries ||
        (tries >= kTriesHoweverLong && std::chrono::steady_clock::now() - begin > kLongestEffort))
      throw Error(ErrorKind::kIo, "{}: {} (tried {} times)", call.host, why, tries);
    spdlog::debug("{} {}: {}, will try again", call.method, call.key, why);
    pause(tries);
    if (call.stop.stop_requested()) throw cancelled(call.host);
  }
}

// Returns if a part of an object was asked for, and one that is too long came.
void S3Store::refuse_too_large(const HttpFailure& failure, const Call& call) const {
  if (!call.headers.contains("range")) throw Error(ErrorKind::kCorrupt, "{}", failure.message());
  constexpr long kPartialContent = 206;
  if (failure.status() != kPartialContent)
    throw Error(ErrorKind::kUnsupported, "{} does not serve parts of objects", options_.host);
}

// Empty if the answer is one. Else why the call, which may have been changed, is to be tried again.
std::string S3Store::why_not(const HttpClient::Response& response, Call& call) {
  if (is_success(response)) return {};
  if (call.method == "POST" && is_unknown_call(response)) return {};
  std::string code = s3_error_code(response);
  switch (response.status) {
    case 404:
      if (code == "NoSuchBucket") break;
      // Something on the way to the server may answer so, too, and what isn't there may be removed.
      if (code == "NoSuchKey" || (call.method == "HEAD" && response.header("x-amz-request-id")))
        return {};
      // Not all servers have that header: what they answer to GET has a code.
      if (call.method == "HEAD" && ask(first_byte_of(call.key)).status == 404) return {};
      return "HTTP status 404 that is not S3's";
    case 416:
      return is_behind_the_end(response) ? "" : "HTTP status 416 that is not S3's";
    case 412:
    case 501:
      return {};
    default:
      break;
  }
  if (is_transient(response, code)) return fmt::format("HTTP status {} {}", response.status, code);
  if (is_expired_key(code) && !std::exchange(call.has_new_keys, true)) {
    credentials_.forget(call.credentials);
    return code;
  }
  if (const std::string other = redirected_host(response, call);
      !other.empty() && other != std::exchange(call.host, other))
    return "it is served at " + other;
  // What is missing is not said in any other way.
  if (code == "InvalidRequest" && call.method == "PUT" && !call.headers.contains("content-md5")) {
    call.headers["content-md5"] = md5(call.body);
    wants_md5_ = true;
    return code;
  }
  // An answer to HEAD has no body that could tell the reason: this throws it, or has fetched new
  // keys.
  if (call.method == "HEAD") {
    ask(first_byte_of(call.key));
    return fmt::format("HTTP status {}", response.status);
  }
  throw s3_error(response, options_);
}

S3Store::Call S3Store::first_byte_of(const std::string& key) {
  return {.method = "GET", .key = key, .headers = {{"range", "bytes=0-0"}}};
}

// Where a bucket is that was made just now, and whose name not all servers of the cloud know yet;
// empty if the answer does not say it, or names another path there.
std::string S3Store::redirected_host(const HttpClient::Response& response, const Call& call) const {
  if (response.status != 307) return {};
  const std::string location = response.header("location").value_or("");
  const std::string server = server_in(location);
  const std::string scheme = options_.scheme + "://";
  if (!server.starts_with(scheme)) return {};
  const std::string path = location.substr(server.size(), location.find('?') - server.size());
  return path == path_of(call) ? server.substr(scheme.size()) : "";
}

// Anything between a half and the whole, so that those who failed together don't come together.
// Less if a stop is requested.
void S3Store::pause(unsigned tries) const {
  static thread_local std::minstd_rand random{std::random_device()()};
  const auto longest = std::min<std::chrono::milliseconds>(pause_ * (1U << tries), kLongestPause);
  const auto whole = static_cast<int>(longest.count());
  const std::chrono::milliseconds pause(std::uniform_int_distribution(whole / 2, whole)(random));
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any().wait_for(lock, stop_, pause, [] { return false; });
}

HttpClient::Response S3Store::put_object(const std::string& key, std::span<const std::byte> data,
                                         Headers headers) {
  check_key(key);
  if (!options_.storage_class.empty() && data.size() >= kLeastOfAClass)
    headers["x-amz-storage-class"] = options_.storage_class;
  if (!options_.encryption.empty()) headers["x-amz-server-side-encryption"] = options_.encryption;
  if (!options_.kms_key.empty())
    headers["x-amz-server-side-encryption-aws-kms-key-id"] = options_.kms_key;
  if (wants_md5_) headers["content-md5"] = md5(data);
  return with_context(key, [&] {
    return ask({.method = "PUT", .key = key, .headers = std::move(headers), .body = data},
               &check_is_object);
  });
}

void S3Store::put(const std::string& key, std::span<const std::byte> data) {
  const HttpClient::Response response = put_object(key, data, {});
  if (!is_success(response)) throw s3_error(response, options_);
}

PutOutcome S3Store::put_if_absent(const std::string& key, std::span<const std::byte> data) {
  // Some servers don't know the condition, and not all of them say so.
  if (head(key)) return PutOutcome::kAlreadyThere;
  if (puts_if_absent_) {
    const HttpClient::Response response = put_object(key, data, {{"if-none-match", "*"}});
    if (is_success(response)) return PutOutcome::kStored;
    if (response.status == 412) return whose_object(key, data);
    if (response.status != 501) throw s3_error(response, options_);
    puts_if_absent_ = false;
  }
  put(key, data);
  return PutOutcome::kStored;
}

// What is there may have been put by ourselves, a moment ago: an answer was lost, and the request
// sent again, by libcurl or by us.
PutOutcome S3Store::whose_object(const std::string& key, std::span<const std::byte> data) {
  try {
    const std::vector<std::byte> there = get(key, data.size());
    if (std::ranges::equal(there, data)) return PutOutcome::kStored;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound && error.kind() != ErrorKind::kCorrupt) throw;
  }
  return PutOutcome::kAlreadyThere;
}

std::vector<std::byte> S3Store::get(const std::string& key, std::uint64_t max_size) {
  check_key(key);
  return with_context(key, [&] {
    HttpClient::Response response =
        ask({.method = "GET", .key = key, .max_response = max_size}, &check_whole);
    if (response.status == 404) throw Error(ErrorKind::kNotFound, "there is no such object");
    if (!is_success(response)) throw s3_error(response, options_);
    if (response.body.size() > max_size)
      throw Error(ErrorKind::kCorrupt, "it is larger than {} bytes", max_size);
    return std::move(response.body);
  });
}

std::size_t S3Store::get_range(const std::string& key, std::uint64_t offset,
                               std::span<std::byte> out) {
  check_key(key);
  // No range has no bytes: one is asked for.
  const std::size_t length = std::max<std::size_t>(out.size(), 1);
  return with_context(key, [&] {
    const HttpClient::Response response =
        ask({.method = "GET",
             .key = key,
             .headers = {{"range", fmt::format("bytes={}-{}", offset, offset + length - 1)}},
             .max_response = length,
             .part = length},
            [&](const HttpClient::Response& part) {
              if (part.status == 206)
                check_range(part, offset, length);
              else
                check_is_object(part);
            });
    if (response.status == 404) throw Error(ErrorKind::kNotFound, "there is no such object");
    if (response.status == 416) return std::size_t{0};
    if (response.status != 206) {
      // Of an empty object, some servers send all that there is.
      if (response.status == 200 && response.body.empty()) return std::size_t{0};
      if (!is_success(response)) throw s3_error(response, options_);
      throw Error(ErrorKind::kUnsupported, "{} does not serve parts of objects", options_.host);
    }
    const std::size_t count = std::min(response.body.size(), out.size());
    std::copy_n(response.body.begin(), count, out.begin());
    return count;
  });
}

std::optional<ObjectInfo> S3Store::head(const std::string& key) {
  check_key(key);
  return with_context(key, [&]() -> std::optional<ObjectInfo> {
    ObjectInfo info;
    const auto check = [&](const HttpClient::Response& answer) { info = parse_head(key, answer); };
    const HttpClient::Response response = ask({.method = "HEAD", .key = key}, check);
    if (response.status == 404) return std::nullopt;
    if (!is_success(response)) throw s3_error(response, options_);
    return info;
  });
}

void S3Store::list_pages(const Query& query,
                         const std::function<void(const ListPage::Entry& entry)>& visit) {
  std::string token;
  while (true) {
    Query next = query;
    next["list-type"] = "2";
    if (!token.empty()) next["continuation-token"] = token;
    ListPage page;
    const auto check = [&](const HttpClient::Response& answer) { page = parse_list_page(answer); };
    const HttpClient::Response response =
        ask({.method = "GET", .query = next, .max_response = kMaxListPage}, check);
    if (!is_success(response)) throw s3_error(response, options_);
    for (const ListPage::Entry& entry : page.entries) visit(entry);
    if (page.next.empty()) return;
    if (page.next == token)
      throw Error(ErrorKind::kIo, "{} ends a list of objects before its end", options_.host);
    token = std::move(page.next);
  }
}

void S3Store::list(const std::string& prefix, const std::function<void(const ObjectInfo&)>& visit) {
  check_prefix(prefix);
  const std::string begin = options_.path + prefix;
  with_context(prefix, [&] {
    list_pages({{"prefix", begin}}, [&](const ListPage::Entry& entry) {
      if (!entry.object || !entry.key.starts_with(begin)) return;
      ObjectInfo info = *entry.object;
      info.key = entry.key.substr(options_.path.size());
      if (is_key(info.key)) visit(info);  // others than us may keep objects there
    });
  });
}

std::vector<std::string> S3Store::list_directories(const std::string& prefix) {
  check_prefix(prefix);
  const std::string begin = options_.path + prefix;
  std::vector<std::string> names;
  with_context(prefix, [&] {
    list_pages({{"prefix", begin}, {"delimiter", "/"}}, [&](const ListPage::Entry& entry) {
      if (entry.object || !entry.key.starts_with(begin) || !entry.key.ends_with('/')) return;
      std::string name = entry.key.substr(begin.size());
      name.pop_back();
      if (is_key_component(name)) names.push_back(std::move(name));
    });
  });
  std::ranges::sort(names);
  return names;
}

void S3Store::remove(const std::string& key) {
  check_key(key);
  with_context(key, [&] {
    const HttpClient::Response response = ask({.method = "DELETE", .key = key}, &check_removed);
    if (!is_success(response) && response.status != 404) throw s3_error(response, options_);
  });
}

void S3Store::remove_all(std::span<const std::string> keys) {
  while (removes_pages_ && !keys.empty()) {
    const auto page = keys.first(std::min(keys.size(), kKeysPerRemoval));
    remove_page(page);
    if (removes_pages_) keys = keys.subspan(page.size());
  }
  ObjectStore::remove_all(keys);
}

void S3Store::remove_page(std::span<const std::string> keys) {
  for (const std::string& key : keys) check_key(key);
  const std::string body = removal_request(options_.path, keys);
  std::string error;
  const auto check = [&](const HttpClient::Response& answer) { error = removal_error(answer); };
  with_context(fmt::format("{} and {} more", keys.front(), keys.size() - 1), [&] {
    HttpClient::Response response =
        ask({.method = "POST",
             .query = {{"delete", ""}},
             .headers = {{"content-md5", md5(as_bytes(body))}},  // which all servers want here
             .body = as_bytes(body),
             .max_response = kMaxListPage},
            check);
    if (is_unknown_call(response)) {
      removes_pages_ = false;
      return;
    }
    if (is_success(response) && error.empty()) return;
    if (!error.empty()) {
      const auto text = as_bytes(error);
      response.body.assign(text.begin(), text.end());
    }
    throw s3_error(response, options_);
  });
}

}  // namespace convoy
