// Objects in a bucket of S3: Amazon's, or any server's that speaks its API. ("Amazon S3 API
// Reference"; what is asked of a server: PutObject, GetObject with a range, HeadObject,
// ListObjectsV2, DeleteObject and, if it has it, DeleteObjects.) It must show at once, to all, what
// was put and what was removed, in listings, too: so do Amazon's, Ceph and Minio, but not a Swift
// of several machines.
//
// What may pass is tried again, for about a minute or at least a few times, with growing pauses: no
// connection, a connection that stalls or breaks, an answer that is cut off or makes no sense,
// statuses that ask for it.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include "objectstore/http_client.h"
#include "objectstore/object_store.h"
#include "objectstore/s3_answer.h"
#include "objectstore/s3_credentials.h"
#include "objectstore/s3_options.h"

namespace convoy {

class S3Store : public ObjectStore {
 public:
  // Asks nothing of the server yet. `client` is made by the options' `http`, and may be shared by
  // several; null: it gets one of its own. When `stop` is requested, what is under way throws
  // kCancelled within a second or so, not knowing whether it had an effect; what is begun later, by
  // those who tidy up, is tried once, and packs are refused. `pause` is what the first repetition
  // waits, about.
  explicit S3Store(S3Options options, Environment environment = process_environment,
                   std::shared_ptr<HttpClient> client = nullptr, std::stop_token stop = {},
                   std::chrono::milliseconds pause = std::chrono::milliseconds(200));

  void put(const std::string& key, std::span<const std::byte> data) override;
  // Of several callers at once, more than one may be told kStored if they put the same bytes, or if
  // the server does not know "If-None-Match: *".
  PutOutcome put_if_absent(const std::string& key, std::span<const std::byte> data) override;
  std::vector<std::byte> get(const std::string& key, std::uint64_t max_size) override;
  std::size_t get_range(const std::string& key, std::uint64_t offset,
                        std::span<std::byte> out) override;
  std::optional<ObjectInfo> head(const std::string& key) override;
  void list(const std::string& prefix,
            const std::function<void(const ObjectInfo&)>& visit) override;
  std::vector<std::string> list_directories(const std::string& prefix) override;
  void remove(const std::string& key) override;
  // By one request for a thousand of them.
  void remove_all(std::span<const std::string> keys) override;
  std::chrono::milliseconds time_lag() const override { return kTimeLag; }

 private:
  using Query = std::map<std::string, std::string>;
  using Headers = std::map<std::string, std::string>;
  struct Call {
    std::string method;
    std::string key = {};  // of an object; empty: of the bucket
    Query query = {};
    Headers headers = {};
    std::span<const std::byte> body = {};
    std::size_t max_response = 0;
    std::size_t part = 0;  // the length of what is asked for, if that is known

    std::string host = {};
    S3Credentials credentials = {};  // of the last try
    bool has_new_keys = false;
    std::stop_token stop = {};
  };
  // The answer, of status 2xx, 404, 412, 416 or 501, or that POST is unknown; all others are
  // thrown. `check` throws HttpFailure if a success makes no sense: then it is asked for again.
  using Check = std::function<void(const HttpClient::Response& response)>;
  HttpClient::Response ask(Call call, const Check& check = {});
  std::string path_of(const Call& call) const;  // as it stands in the URL
  HttpClient::Request signed_request(Call& call);
  std::string why_not(const HttpClient::Response& response, Call& call);
  static Call first_byte_of(const std::string& key);
  std::string redirected_host(const HttpClient::Response& response, const Call& call) const;
  void refuse_too_large(const HttpFailure& failure, const Call& call) const;
  void pause(unsigned tries) const;
  HttpClient::Response put_object(const std::string& key, std::span<const std::byte> data,
                                  Headers headers);
  PutOutcome whose_object(const std::string& key, std::span<const std::byte> data);
  std::string host() const;
  // Calls `visit` with each object and each directory.
  void list_pages(const Query& query,
                  const std::function<void(const ListPage::Entry& entry)>& visit);
  void remove_page(std::span<const std::string> keys);

  // Of all who use a store: a change of it is one of the format.
  static constexpr std::chrono::seconds kTimeLag{30};

  const S3Options options_;
  const std::stop_token stop_;
  const std::chrono::milliseconds pause_;
  S3CredentialSource credentials_;
  const std::shared_ptr<HttpClient> client_;
  std::atomic<bool> wants_md5_ = false;      // of each object, as buckets with object lock do
  std::atomic<bool> puts_if_absent_ = true;  // the server can
  std::atomic<bool> removes_pages_ = true;   // the server can
};

}  // namespace convoy
