// What is in the log's file.
#include "base/log.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

namespace convoy {
namespace {

TEST(Log, AsJsonTakesAnyBytes) {
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

}  // namespace
}  // namespace convoy
