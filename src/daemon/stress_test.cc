// The whole daemon, but for the kernel's pool and who watches it, with 32 clients at once that do
// what they like to a few volumes: each answer is a success, or says that something is busy, exists
// already or is gone; and nothing is left over. For a minute where threads are watched.
#include <atomic>
#include <chrono>
#include <random>
#include <set>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "catalog/catalog.h"
#include "catalog/catalog_copy.h"
#include "daemon/api.h"
#include "daemon/backups.h"
#include "daemon/creations.h"
#include "daemon/docker_plugin.h"
#include "daemon/http_server.h"
#include "daemon/jobs.h"
#include "volumes/file_thin_pool.h"
#include "volumes/volumes.h"

namespace convoy {
namespace {

using nlohmann::json;

#ifdef __SANITIZE_THREAD__
constexpr std::chrono::seconds kTime{60};
#else
constexpr std::chrono::seconds kTime{4};
#endif
constexpr unsigned kClients = 32;

struct Answer {
  int status = 0;
  std::string body;

  // The last line of a job's answer, or the whole.
  json last() const {
    const std::size_t end = body.find_last_not_of('\n');
    if (end == std::string::npos) return json::object();
    const std::size_t begin = body.rfind('\n', end);
    return json::parse(body.substr(begin == std::string::npos ? 0 : begin + 1, end + 1));
  }
  std::string kind() const {
    const json answer = last();
    return answer.contains("Kind") ? answer["Kind"].get<std::string>() : "";
  }
};

// One request on a connection of its own, as the command line makes them.
Answer call(const std::filesystem::path& socket, const std::string& method,
            const std::string& target, const json& fields = nullptr) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  std::ranges::copy(socket.native(), address.sun_path);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw system_error(errno, "connect");
  const std::string body = fields.is_null() ? "" : fields.dump();
  write_all(fd.get(),
            as_bytes(fmt::format("{} {} HTTP/1.0\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                                 method, target, body.size(), body)));
  std::string text;
  std::array<char, 65536> buffer;
  for (ssize_t count = 0; (count = ::read(fd.get(), buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(count));
  Answer answer;
  if (text.size() < 12) throw Error(ErrorKind::kIo, "no answer to {} {}", method, target);
  answer.status = std::stoi(text.substr(9, 3));
  answer.body = text.substr(text.find("\r\n\r\n") + 4);
  return answer;
}

std::string percent_encoded(const std::string& text) {
  std::string encoded;
  for (const char character : text)
    encoded += fmt::format("%{:02X}", static_cast<unsigned char>(character));
  return encoded;
}

class StressTest : public testing::Test {
 protected:
  StressTest() {
    spdlog::set_level(spdlog::level::off);
    std::filesystem::create_directories(directory_ / "store");
    PoolRow pool;
    pool.uuid = Uuid::generate();
    pool.name = "convoy-pool";
    pool.block_size = FileThinPool::kBlock;
    pool.transaction_id = 1000;
    pool.default_size = 8 * kMiB;
    pool.default_filesystem = "ext4";
    catalog_.insert_pool(pool);
    catalog_.set_pool_ready();
    copy_.emplace(directory_ / "catalog.db");
    volumes_.emplace(catalog_, pool_, MountNamespace(""),
                     VolumesOptions{directory_ / "mounts", std::chrono::seconds(60)});
    volumes_->recover();
    backups_.emplace(catalog_, *volumes_, S3Setup{});
    creations_.emplace(*volumes_, *backups_, jobs_);
    api_.emplace(GeneralSettings{}, *volumes_, *backups_, *creations_, jobs_);
    plugin_.emplace(GeneralSettings{}, *volumes_, *creations_);
    server_.emplace(socket_, [this](const HttpRequest& request) {
      return plugin_->serves(request.path) ? plugin_->handle(request) : api_->handle(request);
    });
  }
  ~StressTest() override {
    jobs_.stop();
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  Answer call(const std::string& method, const std::string& target, const json& fields = nullptr) {
    return convoy::call(directory_ / "socket", method, target, fields);
  }

  std::string url() const { return fmt::format("vfs://{}/", (directory_ / "store").native()); }

  std::vector<std::string> backup_urls() {
    const Answer answer = call("GET", "/v1/backups?destination=" + percent_encoded(url()));
    std::vector<std::string> urls;
    if (answer.status != 200) return urls;
    const json backups = answer.last().at("Backups");
    for (const auto& [name, backup] : backups.items()) urls.push_back(name);
    return urls;
  }

  // One random thing, and its answer.
  Answer act(std::mt19937& dice);

  // In memory, where a sync takes no time.
  const std::filesystem::path directory_ =
      std::filesystem::path(std::filesystem::exists("/dev/shm") ? "/dev/shm" : testing::TempDir()) /
      fmt::format("convoy-stress-{}", ::getpid());
  const bool made_ = std::filesystem::create_directories(directory_);
  FileThinPool pool_{directory_ / "pool"};
  Catalog catalog_{directory_ / "catalog.db"};
  std::optional<CatalogCopy> copy_;
  std::optional<Volumes> volumes_;
  Jobs jobs_;
  std::optional<Backups> backups_;
  std::optional<Creations> creations_;
  std::optional<Api> api_;
  std::optional<DockerPlugin> plugin_;
  ListeningSocket socket_{directory_ / "socket", ""};
  std::optional<HttpServer> server_;
};

Answer StressTest::act(std::mt19937& dice) {
  const std::string volume = fmt::format("v{}", dice() % 6);
  const std::string snapshot = fmt::format("s{}", dice() % 12);
  const auto docker = [&](const char* name, const json& fields) {
    return call("POST", fmt::format("/VolumeDriver.{}", name), fields);
  };
  const auto with_backup = [&](auto&& action) {
    const std::vector<std::string> urls = backup_urls();
    return urls.empty() ? Answer{200, "{}"} : action(urls[dice() % urls.size()]);
  };
  switch (dice() % 22) {
    case 0:
    case 1:
      return call("POST", "/v1/volume", {{"Name", volume}, {"Size", "8M"}});
    case 2:
      return call("DELETE", "/v1/volume?name=" + volume);
    case 3:
    case 4:
    case 5:
      return call("POST", "/v1/snapshot", {{"Volume", volume}, {"Name", snapshot}});
    case 6:
      return call("DELETE", "/v1/snapshot?name=" + snapshot);
    case 7:
    case 8:
      return call("POST", "/v1/backup", {{"Snapshot", snapshot}, {"Destination", url()}});
    case 9:
      return with_backup([&](const std::string& backup) {
        return call("DELETE", "/v1/backup?url=" + percent_encoded(backup));
      });
    case 10:
      return with_backup([&](const std::string& backup) {
        return call("POST", "/v1/volume", {{"Name", volume}, {"Backup", backup}});
      });
    case 11:
      return with_backup([&](const std::string& backup) {
        return call("POST", "/v1/volume/restore", {{"Name", volume}, {"Backup", backup}});
      });
    case 12:
      return call("POST", "/v1/backup/verify", {{"URL", url()}, {"Quick", dice() % 2 == 0}});
    case 13:
      return call("POST", "/v1/backup/gc", {{"Destination", url()}});
    case 14:
      return call("GET", "/v1/volumes");
    case 15:
      return call("GET", "/v1/volume?name=" + volume);
    case 16: {
      const json jobs = call("GET", "/v1/jobs").last();
      if (jobs.empty() || dice() % 2 == 0) return call("GET", "/v1/info");
      return call("DELETE", fmt::format("/v1/job?id={}", jobs[0]["ID"].get<std::string>()));
    }
    case 17:
      return docker("List", json::object());
    case 18:
      return docker("Get", {{"Name", volume}});
    case 19:  // fails: a file is no block device
      return docker("Mount", {{"Name", volume}, {"ID", "container"}});
    case 20:
      return docker("Unmount", {{"Name", volume}, {"ID", "container"}});
    default:
      return docker("Create", {{"Name", volume}, {"Opts", {{"size", "8M"}}}});
  }
}

TEST_F(StressTest, ManyClientsGetSensibleAnswersAndLeaveNothing) {
  const auto end = std::chrono::steady_clock::now() + kTime;
  std::atomic<unsigned> successes = 0;
  std::mutex mutex;
  std::map<std::string, unsigned> kinds;
  std::set<std::string> surprises;
  {
    std::vector<std::jthread> clients;
    clients.reserve(kClients);
    for (unsigned client = 0; client < kClients; ++client) {
      clients.emplace_back([&, client] {
        std::mt19937 dice(client);
        while (std::chrono::steady_clock::now() < end) {
          const Answer answer = act(dice);
          const std::string kind = answer.kind();
          const std::lock_guard lock(mutex);
          ++kinds[kind];
          const std::set<std::string> expected = {"",     "not found", "already exists",
                                                  "busy", "cancelled", "unavailable"};
          if (kind.empty()) ++successes;
          // A store that nobody has made yet, and a volume of another size than the backup's.
          if (!expected.contains(kind) && kind != "invalid argument") surprises.insert(answer.body);
        }
      });
    }
  }
  EXPECT_THAT(surprises, testing::IsEmpty());
  EXPECT_GT(successes, 100U);
  for (const auto& [kind, count] : kinds)
    std::cout << fmt::format("{} {}\n", count, kind.empty() ? "done" : kind);

  const Answer verified = call("POST", "/v1/backup/verify", {{"URL", url()}});
  EXPECT_EQ(verified.last()["Result"]["Damaged"], json::array()) << verified.body;
  for (const std::string& backup : backup_urls())
    EXPECT_EQ(call("DELETE", "/v1/backup?url=" + percent_encoded(backup)).kind(), "");
  const json volumes = call("GET", "/v1/volumes").last();
  for (const auto& [name, volume] : volumes.items())
    EXPECT_EQ(call("DELETE", "/v1/volume?name=" + name).kind(), "") << name;
  EXPECT_EQ(pool_.thin_devices(), 0U);
  EXPECT_THAT(pool_.active(), testing::IsEmpty());
  EXPECT_EQ(pool_.status().metadata_snapshot, 0U);
  EXPECT_THAT(catalog_.volumes(), testing::IsEmpty());
  if (std::filesystem::exists(directory_ / "mounts")) {
    EXPECT_TRUE(std::filesystem::is_empty(directory_ / "mounts"));
  }
  EXPECT_THAT(catalog_.snapshots(), testing::IsEmpty());
  EXPECT_FALSE(catalog_.intent());
  EXPECT_EQ(call("GET", "/v1/jobs").last(), json::array());
}

}  // namespace
}  // namespace convoy
