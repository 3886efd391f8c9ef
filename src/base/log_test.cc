// What is in the log's file.
#include "base/log.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace convoy {
namespace {

TEST(Log, AsJsonTakesAnyBytes) {
  spdlog::drop("convoy");
  const std::string file = testing::TempDir() + "log_test.log";
  start_log(file, LogFormat::kJson, LogLevel::kInfo);
  spdlog::info("a name like {}", "caf\xe9 \"quoted\"\n");
  spdlog::debug("not asked for");
  std::ifstream in(file);
  std::string line;
  ASSERT_TRUE(std::getline(in, line));
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json.at("level"), "info");
  EXPECT_EQ(json.at("message"), "a name like caf\xef\xbf\xbd \"quoted\"\n");
  EXPECT_FALSE(std::getline(in, line));
  ASSERT_EQ(std::remove(file.c_str()), 0);
}

// Who chooses a volume's name must not be able to write a line of his own.
TEST(Log, AsTextHasOneLineForEachMessage) {
  spdlog::drop("convoy");  // what another test started
  const std::string file = testing::TempDir() + "log_test_text.log";
  start_log(file, LogFormat::kText, LogLevel::kInfo);
  spdlog::warn("'{}' is no name", "a\n2026-01-01T00:00:00 info volume b deleted\x1b[2J\x7f");
  std::ifstream in(file);
  std::string line;
  ASSERT_TRUE(std::getline(in, line));
  EXPECT_TRUE(line.ends_with(
      R"( warning 'a\n2026-01-01T00:00:00 info volume b deleted\x1b[2J\x7f' is no name)"))
      << line;
  EXPECT_FALSE(std::getline(in, line));
  ASSERT_EQ(std::remove(file.c_str()), 0);
}

TEST(Log, HasNoSecrets) {
  EXPECT_EQ(without_secrets("can't open s3://AKIA:wJalr/x@bucket/a@b of db"),
            "can't open s3://***@b of db");  // not encoded, as it should be
  EXPECT_EQ(without_secrets("http://host:9000/x@y"), "http://host:9000/x@y");
  EXPECT_EQ(without_secrets("'https://h/o?X-Amz-Signature=abc&backup=b&token' s3://u:p@b/"),
            "'https://h/o?X-Amz-Signature=***&backup=b&token=***' s3://***@b/");
  EXPECT_EQ(without_secrets("vfs:///p/?backup=b\\u0026volume=v vfs:///p/?backup=b&volume=v"),
            "vfs:///p/?backup=b\\u0026volume=v vfs:///p/?backup=b&volume=v");
  EXPECT_EQ(without_secrets("s3://AKIA:wJalr@bucket@eu/p and https://u:p@host/, s3://b@r/c:d@e"),
            "s3://***@eu/p and https://***@host/, s3://b@r/c:d@e");
  EXPECT_EQ(without_secrets("backup vfs:///a:b@c/ 10:20"), "backup vfs:///a:b@c/ 10:20");
  EXPECT_EQ(without_secrets("://"), "://");
}

}  // namespace
}  // namespace convoy
