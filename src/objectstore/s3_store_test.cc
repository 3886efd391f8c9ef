// What the client of S3 does with answers that a well-behaved server never gives. The server here
// is a script; that the client works with real ones is shown in tests/s3.
#include "objectstore/s3_store.h"

#include <atomic>
#include <map>
#include <stop_token>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "objectstore/scripted_server_testing.h"

namespace convoy {
namespace {

using testing::HasSubstr;

Answer error_answer(int status, const std::string& code) {
  return {.status = status,
          .headers = {{"x-amz-request-id", "1"}},
          .body = "<Error><Code>" + code + "</Code></Error>"};
}

Answer object_answer(const std::string& body = "") {
  return {.status = 200, .headers = {{"etag", "\"1\""}}, .body = body};
}

const std::map<std::string, std::string> kKeys = {
    {"AWS_ACCESS_KEY_ID", "access"}, {"AWS_SECRET_ACCESS_KEY", "secret"}, {"HOME", "/nonexistent"}};

constexpr std::chrono::milliseconds kPause{1};

Environment environment_of(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
}

template <typename Server>
S3Store store_at(const Server& server, const std::string& settings = "",
                 std::map<std::string, std::string> variables = kKeys, std::stop_token stop = {},
                 std::chrono::milliseconds pause = kPause) {
  const Environment environment = environment_of(std::move(variables));
  return S3Store(resolve_s3({.bucket = "bucket", .region = "", .path = "p/"}, "s3://bucket/p/",
                            "http://" + server.host(), parse_ini(settings), environment),
                 environment, nullptr, std::move(stop), pause);
}

ErrorKind kind_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind::kInternal;
}

TEST(S3StoreTest, PutsIfAbsentByAConditionOfTheServers) {
  std::string there;
  ScriptedServer server([&](const ServedRequest& request) {
    if (request.method == "HEAD") return error_answer(404, "");
    if (request.method == "GET") return object_answer(there);
    EXPECT_EQ(request.headers.at("if-none-match"), "*");
    return there.empty() ? object_answer() : error_answer(412, "PreconditionFailed");
  });
  S3Store store = store_at(server);
  EXPECT_EQ(store.put_if_absent("key", as_bytes("ours")), PutOutcome::kStored);
  server.with_lock([&] { there = "another's"; });
  EXPECT_EQ(store.put_if_absent("key", as_bytes("ours")), PutOutcome::kAlreadyThere);
  server.with_lock([&] { there = "ours"; });  // it was put, and the answer lost
  EXPECT_EQ(store.put_if_absent("key", as_bytes("ours")), PutOutcome::kStored);
}

TEST(S3StoreTest, DoesNotTakeAPagesWordForAnAnswer) {
  int calls = 0;
  ScriptedServer server([&](const ServedRequest& request) {
    const bool is_first = ++calls % 2 == 1;
    if (is_first) return Answer{.status = request.method == "PUT" ? 200 : 404, .body = "<html>"};
    return object_answer("text");
  });
  S3Store store = store_at(server);
  store.put("key", as_bytes("text"));
  EXPECT_EQ(as_text(store.get("key", 100)), "text");
  EXPECT_EQ(server.requests().size(), 4U);
}

TEST(S3StoreTest, DoesNotTakeAPagesWordForAPartOrARemoval) {
  int calls = 0;
  ScriptedServer server([&](const ServedRequest& request) {
    const bool is_first = ++calls % 2 == 1;
    const bool is_behind_the_end = request.target == "/bucket/p/short";
    if (is_first) return Answer{.status = is_behind_the_end ? 416 : 200, .body = "<html>"};
    if (request.method == "DELETE") return Answer{.status = 204};
    if (is_behind_the_end) return error_answer(416, "InvalidRange");
    Answer answer = object_answer("text");
    answer.status = 206;
    answer.headers["content-range"] = "bytes 0-3/10";
    return answer;
  });
  S3Store store = store_at(server);
  std::array<std::byte, 4> part = {};
  EXPECT_EQ(store.get_range("key", 0, part), 4U);
  EXPECT_EQ(as_text(part), "text");
  store.remove("key");
  EXPECT_EQ(store.get_range("short", 0, part), 0U);
  EXPECT_EQ(server.requests().size(), 6U);
}

TEST(S3StoreTest, TakesOnlyTheWholeOfWhatItAskedFor) {
  int calls = 0;
  ScriptedServer server([&](const ServedRequest&) {
    Answer answer = object_answer("3456");
    answer.status = 206;
    const std::array<const char*, 4> ranges = {"bytes 0-3/10", "bytes 3-5/10", "", "bytes 3-6/10"};
    answer.headers["content-range"] = ranges[static_cast<std::size_t>(calls++)];
    return answer;
  });
  std::array<std::byte, 4> out = {};
  EXPECT_EQ(store_at(server).get_range("key", 3, out), 4U);
  EXPECT_EQ(server.requests().size(), 4U);
}

TEST(S3StoreTest, SaysThatAServerDoesNotServeParts) {
  ScriptedServer server(
      [&](const ServedRequest&) { return object_answer(std::string(100'000, 'x')); });
  std::array<std::byte, 4> out = {};
  EXPECT_EQ(kind_of([&] { store_at(server).get_range("key", 3, out); }), ErrorKind::kUnsupported);
  EXPECT_EQ(kind_of([&] { store_at(server).get("key", 99'999); }), ErrorKind::kCorrupt);
}

TEST(S3StoreTest, TellsTheReasonWhyHeadWasRefused) {
  ScriptedServer server([&](const ServedRequest& request) {
    return request.method == "HEAD" ? Answer{.status = 403}
                                    : error_answer(403, "InvalidAccessKeyId");
  });
  try {
    store_at(server).head("key");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("does not know the access key"));
  }
}

Answer removal_answer(const std::string& errors = "") {
  return {.status = 200, .body = "<DeleteResult>" + errors + "</DeleteResult>"};
}

TEST(S3StoreTest, RemovesAThousandByOneRequest) {
  ScriptedServer server([&](const ServedRequest&) { return removal_answer(); });
  store_at(server).remove_all(std::vector<std::string>(1001, "a/key"));
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[1].target, "/bucket/?delete=");
  EXPECT_EQ(requests[1].body,
            "<Delete><Quiet>true</Quiet>"
            "<Object><Key>p/a/key</Key></Object></Delete>");
  EXPECT_TRUE(requests[1].has("content-md5"));
}

TEST(S3StoreTest, NoticesWhatWasNotRemoved) {
  std::string code = "InternalError";
  const auto error_for_one = [&] {
    return "<Error><Key>p/b</Key><Code>" + std::exchange(code, "AccessDenied") + "</Code></Error>";
  };
  ScriptedServer server([&](const ServedRequest&) { return removal_answer(error_for_one()); });
  const std::vector<std::string> keys = {"a", "b"};
  try {
    store_at(server).remove_all(keys);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("denies it"));
  }
  EXPECT_EQ(server.requests().size(), 2U);  // the first of which was worth another
  server.with_lock([&] { code = "NoSuchKey"; });
  store_at(server).remove_all(keys);
}

TEST(S3StoreTest, NoticesWhatWasNotRemovedBehindWhatWasNotThere) {
  const auto error = [](const std::string& code) {
    return "<Error><Key>p/b</Key><Code>" + code + "</Code></Error>";
  };
  ScriptedServer server([&](const ServedRequest&) {
    return removal_answer(error("NoSuchKey") + error("AccessDenied"));
  });
  EXPECT_EQ(kind_of([&] { store_at(server).remove_all(std::vector<std::string>{"a", "b"}); }),
            ErrorKind::kIo);
}

TEST(S3StoreTest, RemovesOneByOneWhereTheServerKnowsNoOtherWay) {
  Answer unknown;
  ScriptedServer server([&](const ServedRequest& request) {
    return request.method == "POST" ? unknown : Answer{.status = 204};
  });
  for (const Answer& answer : {error_answer(501, ""), error_answer(405, "MethodNotAllowed"),
                               error_answer(400, "NotImplemented")}) {
    server.with_lock([&] { unknown = answer; });
    const std::size_t before = server.requests().size();
    S3Store store = store_at(server);
    store.remove_all(std::vector<std::string>{"a", "b"});
    store.remove_all(std::vector<std::string>{"c"});
    const auto requests = server.requests();
    std::string methods;
    for (std::size_t i = before; i < requests.size(); ++i) methods += requests[i].method + " ";
    EXPECT_EQ(methods, "POST DELETE DELETE DELETE ");
  }
}

// Not all servers put it into every answer, and an answer to HEAD has no body.
TEST(S3StoreTest, AsksAgainWhetherAnObjectIsAbsent) {
  bool is_there = false;
  ScriptedServer server([&](const ServedRequest& request) {
    if (request.method == "HEAD") return Answer{.status = 404};
    Answer answer = is_there ? object_answer("x") : error_answer(404, "NoSuchKey");
    answer.headers.erase("x-amz-request-id");
    return answer;
  });
  EXPECT_FALSE(store_at(server).head("key"));
  EXPECT_EQ(server.requests().size(), 2U);
  server.with_lock([&] { is_there = true; });
  EXPECT_EQ(kind_of([&] { store_at(server).head("key"); }), ErrorKind::kIo);
}

TEST(S3StoreTest, NamesTheBucketInTheHost) {
  ScriptedServer server([&](const ServedRequest&) { return object_answer("text"); });
  const std::string port = server.host().substr(server.host().find(':'));
  const Environment environment = [](const char* name) {
    const auto found = kKeys.find(name);
    return found == kKeys.end() ? std::nullopt : std::optional(found->second);
  };
  const auto get = [&](const char* addressing) {
    S3Store store(
        resolve_s3({.bucket = "bucket", .region = "", .path = "p/"}, "s3://bucket/p/",
                   "http://localhost" + port,
                   parse_ini(fmt::format("[default]\naddressing = {}", addressing)), environment),
        environment);
    EXPECT_EQ(as_text(store.get("key", 100)), "text");
    return server.requests().back();
  };
  const ServedRequest by_host = get("virtual");  // libcurl knows all names below localhost
  EXPECT_EQ(by_host.headers.at("host"), "bucket.localhost" + port);
  EXPECT_EQ(by_host.target, "/p/key");
  const ServedRequest by_path = get("path");
  EXPECT_EQ(by_path.headers.at("host"), "localhost" + port);
  EXPECT_EQ(by_path.target, "/bucket/p/key");
}

TEST(S3StoreTest, GivesUpInTheEnd) {
  ScriptedServer server([&](const ServedRequest&) { return Answer{.status = 503}; });
  EXPECT_EQ(kind_of([&] { store_at(server).get("key", 1); }), ErrorKind::kIo);
  EXPECT_EQ(server.requests().size(), 9U);
}

// A pause that nobody waits for.
constexpr std::chrono::hours kForever{1};

TEST(S3StoreTest, EndsItsRepetitionsWhenItIsStopped) {
  std::stop_source stop;
  ScriptedServer server([&](const ServedRequest&) { return Answer{.status = 503}; });
  S3Store store = store_at(server, "", kKeys, stop.get_token(), kForever);
  const std::jthread stopping([&] {
    while (server.requests().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stop.request_stop();
  });
  EXPECT_EQ(kind_of([&] { store.get("key", 1); }), ErrorKind::kCancelled);
  EXPECT_EQ(kind_of([&] { store.remove("key"); }),
            ErrorKind::kCancelled);  // as those do who tidy up
  EXPECT_EQ(server.requests().size(), 2U);
  const std::vector<std::byte> pack(2UL * 1024 * 1024);
  EXPECT_EQ(kind_of([&] { store.put("pack", pack); }), ErrorKind::kCancelled);
  EXPECT_EQ(server.requests().size(), 2U);
}

TEST(S3StoreTest, EndsARequestThatIsUnderWayWhenItIsStopped) {
  std::stop_source stop;
  std::atomic<bool> has_ended = false;
  ScriptedServer server([&](const ServedRequest& request) {
    if (request.target == "/bucket/p/hangs") {
      stop.request_stop();
      while (!has_ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return object_answer("text");
  });
  S3Store store = store_at(server, "", kKeys, stop.get_token());
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(kind_of([&] { store.get("hangs", 100); }), ErrorKind::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));  // a stall is 30
  has_ended = true;
  EXPECT_EQ(as_text(store.get("key", 100)), "text");
}

// A lease must not wait for packs.
TEST(S3StoreTest, LeavesAConnectionToWhatIsSmall) {
  constexpr std::size_t kPack = 2UL * 1024 * 1024;
  const std::function<void(S3Store&)> put = [](S3Store& store) {
    store.put("key", std::vector<std::byte>(kPack));
  };
  const std::function<void(S3Store&)> fetch = [](S3Store& store) {
    std::vector<std::byte> part(kPack);
    store.get_range("key", 0, part);
  };
  for (const auto& transfer : {put, fetch}) {
    std::stop_source stop;
    const SilentServer server;
    S3Store store = store_at(server, "[default]\nconnections = 2\n", kKeys, stop.get_token());
    const auto begin = [&](const std::function<void(S3Store&)>& action) {
      return std::jthread(
          [&store, action] { EXPECT_EQ(kind_of([&] { action(store); }), ErrorKind::kCancelled); });
    };
    const auto await_connections = [&](int count) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (server.connections() < count && std::chrono::steady_clock::now() < end)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      EXPECT_EQ(server.connections(), count);
    };
    const std::jthread first = begin(transfer);
    await_connections(1);
    const std::jthread second = begin(transfer);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    await_connections(1);
    const std::jthread lease = begin([](S3Store& s) { s.put("key", as_bytes("lease")); });
    await_connections(2);
    stop.request_stop();
  }
}

TEST(S3StoreTest, DoesNotWaitForEverForAServerThatTakesNoBody) {
  SilentServer server("HTTP/1.1 100 Continue\r\n\r\n");
  S3Options options = resolve_s3({.bucket = "bucket", .region = "", .path = "p/"}, "s3://bucket/p/",
                                 "http://" + server.host(), {}, environment_of(kKeys));
  options.http.stall_timeout = std::chrono::seconds(1);
  std::stop_source stop;
  S3Store store(std::move(options), environment_of(kKeys), nullptr, stop.get_token(), kPause);
  {
    const std::jthread put([&] {
      const std::vector<std::byte> pack(16UL * 1024 * 1024);
      EXPECT_EQ(kind_of([&] { store.put("key", pack); }), ErrorKind::kCancelled);
    });
    // What went into the sockets counts for some seconds.
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (server.connections() < 2 && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    stop.request_stop();
  }
  EXPECT_EQ(server.connections(), 2);  // it was tried again
  EXPECT_TRUE(server.has_received(100'000));
}

TEST(S3StoreTest, SendsWhatTheSettingsSay) {
  ScriptedServer server([&](const ServedRequest&) { return object_answer(); });
  store_at(server,
           "[s3://bucket/]\nstorage-class = COLD\nencryption = aws:kms\nkms-key-id = key-1\n")
      .put("a!/c", as_bytes(std::string(128 * 1024, 'x')));
  const ServedRequest request = server.requests().at(0);
  EXPECT_EQ(request.target, "/bucket/p/a%21/c");
  EXPECT_EQ(request.headers.at("x-amz-storage-class"), "COLD");
  EXPECT_EQ(request.headers.at("x-amz-server-side-encryption"), "aws:kms");
  EXPECT_EQ(request.headers.at("x-amz-server-side-encryption-aws-kms-key-id"), "key-1");
  EXPECT_THAT(request.headers.at("authorization"),
              HasSubstr("x-amz-server-side-encryption-aws-kms-key-id;x-amz-storage-class"));
  store_at(server, "[default]\nstorage-class = COLD\nencryption = AES256\n")
      .put("lease", as_bytes("text"));
  const ServedRequest small = server.requests().back();
  EXPECT_FALSE(small.has("x-amz-storage-class"));
  EXPECT_EQ(small.headers.at("x-amz-server-side-encryption"), "AES256");
}

TEST(S3StoreTest, SendsAndFetchesNoFasterThanTheSettingsAllow) {
  const std::string text(400'000, 'x');
  ScriptedServer server([&](const ServedRequest& request) {
    return object_answer(request.method == "GET" ? text : "");
  });
  S3Store store = store_at(server, "[default]\nupload-limit = 1M\ndownload-limit = 1M\n");
  const auto seconds_of = [](const auto& action) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  EXPECT_GT(seconds_of([&] { store.put("key", as_bytes(text)); }), 0.35);
  EXPECT_GT(seconds_of([&] { store.get("key", text.size()); }), 0.35);
}

TEST(S3StoreTest, SendsAChecksumWhereTheBucketWantsOne) {
  ScriptedServer server([&](const ServedRequest& request) {
    return request.has("content-md5") ? object_answer() : error_answer(400, "InvalidRequest");
  });
  S3Store store = store_at(server);
  store.put("key", as_bytes("text"));
  store.put("key", as_bytes("text"));
  ASSERT_EQ(server.requests().size(), 3U);
  EXPECT_EQ(server.requests().back().headers.at("content-md5"), "HLJR7A1WjeapKbUgxK7Y0Q==");
}

TEST(S3StoreTest, FollowsABucketToItsServer) {
  ScriptedServer other([&](const ServedRequest&) { return object_answer("there"); });
  ScriptedServer server([&](const ServedRequest& request) {
    return Answer{.status = 307,
                  .headers = {{"location", "http://" + other.host() + request.target}}};
  });
  EXPECT_EQ(as_text(store_at(server).get("key", 100)), "there");
  EXPECT_EQ(other.requests().at(0).headers.at("host"), other.host());
  ScriptedServer elsewhere([&](const ServedRequest&) {
    return Answer{.status = 307, .headers = {{"location", "http://" + other.host() + "/p/key"}}};
  });
  EXPECT_EQ(kind_of([&] { store_at(elsewhere).get("key", 100); }), ErrorKind::kInvalidArgument);
}

std::string keys_json(const std::string& name, std::chrono::minutes left) {
  return fmt::format(
      R"({{"AccessKeyId":"{}","SecretAccessKey":"s","Token":"t","Expiration":"{}"}})", name,
      format_rfc3339(now() + left));
}

TEST(S3StoreTest, FetchesOtherKeysWhenTheseHaveExpired) {
  int fetched = 0;
  ScriptedServer server([&](const ServedRequest& request) {
    if (request.target == "/keys") {
      EXPECT_EQ(request.headers.at("authorization"), "permission");
      return Answer{.body = keys_json("key" + std::to_string(++fetched), std::chrono::minutes(60))};
    }
    const bool is_old = request.headers.at("authorization").find("=key1/") != std::string::npos;
    return is_old ? error_answer(400, "ExpiredToken") : object_answer("text");
  });
  S3Store store =
      store_at(server, "",
               {{"HOME", "/nonexistent"},
                {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://" + server.host() + "/keys"},
                {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "permission"}});
  EXPECT_EQ(as_text(store.get("key", 100)), "text");
  EXPECT_EQ(server.requests().back().headers.at("x-amz-security-token"), "t");
  EXPECT_EQ(server.with_lock([&] { return fetched; }), 2);
}

TEST(S3StoreTest, AsksAServiceForKeysMoreThanOnce) {
  int asked = 0;
  ScriptedServer server([&](const ServedRequest& request) {
    if (request.target != "/keys") return object_answer("text");
    if (++asked < 3) return Answer{.status = 503};
    return Answer{.body = keys_json("key", std::chrono::minutes(60))};
  });
  std::map<std::string, std::string> variables = {
      {"HOME", "/nonexistent"},
      {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://" + server.host() + "/keys"}};
  EXPECT_EQ(as_text(store_at(server, "", variables).get("key", 100)), "text");

  // A file that is not there says nothing of the object.
  variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = "/nonexistent/token";
  EXPECT_EQ(kind_of([&] { store_at(server, "", variables).get("key", 100); }),
            ErrorKind::kUnavailable);
}

TEST(S3StoreTest, SaysIfAnInstancesServiceIsIll) {
  ScriptedServer server([&](const ServedRequest&) { return Answer{.status = 503}; });
  EXPECT_EQ(kind_of([&] {
              store_at(server, "",
                       {{"HOME", "/nonexistent"},
                        {"AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://" + server.host()}})
                  .get("key", 100);
            }),
            ErrorKind::kUnavailable);
}

TEST(S3StoreTest, HasTheKeysOfAnInstancesRole) {
  int fetched = 0;
  bool is_ill = false;
  ScriptedServer server([&](const ServedRequest& request) {
    if (request.target == "/latest/api/token") {
      EXPECT_EQ(request.method, "PUT");
      return Answer{.status = is_ill ? 503 : 200, .body = "token"};
    }
    const std::string roles = "/latest/meta-data/iam/security-credentials/";
    if (!request.target.starts_with(roles)) return object_answer("text");
    EXPECT_EQ(request.headers.at("x-aws-ec2-metadata-token"), "token");
    if (request.target == roles) return Answer{.body = "role\n"};
    EXPECT_EQ(request.target, roles + "role");
    ++fetched;
    return Answer{.body = keys_json("key", std::chrono::minutes(4))};  // to be renewed at once
  });
  S3Store store = store_at(
      server, "",
      {{"HOME", "/nonexistent"}, {"AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://" + server.host()}});
  EXPECT_EQ(as_text(store.get("key", 100)), "text");
  EXPECT_EQ(as_text(store.get("key", 100)), "text");  // not more often than every half a minute
  server.with_lock([&] {
    EXPECT_EQ(fetched, 1);
    is_ill = true;  // the keys that are known are good for four minutes
  });
  EXPECT_EQ(as_text(store.get("key", 100)), "text");
}

}  // namespace
}  // namespace convoy
