#include "sys/process.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

namespace convoy {
namespace {

using std::chrono::seconds;

Error failure_of(const std::vector<std::string>& arguments, std::chrono::milliseconds timeout) {
  try {
    run_command(arguments, timeout);
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::kInternal, "it succeeded"};
}

TEST(RunCommand, GivesWhatTheProgramPrintsOnBothOutputs) {
  EXPECT_EQ(run_command({"sh", "-c", "echo one; echo two >&2"}, seconds(10)), "one\ntwo");
}

TEST(RunCommand, ShowsStatusAndOutputOfAFailure) {
  const Error error = failure_of({"sh", "-c", "echo no such luck; exit 3"}, seconds(10));
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_EQ(error.message(), "sh ended with status 3: no such luck");
}

TEST(RunCommand, NamesAProgramThatIsMissing) {
  const Error error = failure_of({"no-such-program-anywhere"}, seconds(10));
  EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
  EXPECT_THAT(error.message(), testing::HasSubstr("no-such-program-anywhere"));
}

TEST(RunCommand, KillsAProgramThatHangsAndItsChildren) {
  const Error error =
      failure_of({"sh", "-c", "sleep 1000 & sleep 1000"}, std::chrono::milliseconds(200));
  EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
}

TEST(RunCommand, KillsAProgramThatHangsWithItsOutputClosed) {
  const Error error =
      failure_of({"sh", "-c", "exec >&- 2>&-; sleep 1000"}, std::chrono::milliseconds(200));
  EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
}

TEST(RunCommand, EndsWithTheProcessThatRunsIt) {
  const std::filesystem::path pid_file =
      std::filesystem::path(testing::TempDir()) / fmt::format("child.{}", ::getpid());
  const pid_t parent = ::fork();
  if (parent == 0) {
    failure_of({"sh", "-c", fmt::format("echo $$ > {}; exec sleep 1000", pid_file.native())},
               seconds(100));
    ::_exit(0);
  }
  pid_t child = 0;
  while (child == 0) std::ifstream(pid_file) >> child;
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  // Its entry in /proc goes when somebody has waited for it, or its state is Z.
  const auto lives = [&] {
    std::string text;
    std::getline(std::ifstream(fmt::format("/proc/{}/stat", child)), text);
    return !text.empty() && text.find(") Z ") == std::string::npos;
  };
  const auto deadline = std::chrono::steady_clock::now() + seconds(10);
  while (lives() && std::chrono::steady_clock::now() < deadline) ::usleep(1000);
  EXPECT_FALSE(lives());
  std::filesystem::remove(pid_file);
}

TEST(RunCommand, FailsIfTheStatusIsLost) {
  // The kernel forgets the children of those who ignore their end.
  const auto before = std::signal(SIGCHLD, SIG_IGN);
  const Error error = failure_of({"true"}, seconds(10));
  ASSERT_NE(std::signal(SIGCHLD, before), SIG_ERR);
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_THAT(error.message(), testing::HasSubstr("waitpid"));
}

TEST(RunCommand, KeepsOnlyTheEndOfALongOutput) {
  const std::string output =
      run_command({"sh", "-c", "yes | head -c 1000000; echo end"}, seconds(10));
  EXPECT_LE(output.size(), 64U * 1024);
  EXPECT_TRUE(output.ends_with("end"));
}

TEST(RunCommand, EndsWhenAStopIsRequested) {
  std::stop_source stop;
  const std::jthread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop.request_stop();
  });
  const auto begin = std::chrono::steady_clock::now();
  try {
    run_command({"sleep", "60"}, std::chrono::seconds(60), stop.get_token());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

}  // namespace
}  // namespace convoy
