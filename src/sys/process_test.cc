#include "sys/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST(RunCommand, KeepsOnlyTheEndOfALongOutput) {
  const std::string output =
      run_command({"sh", "-c", "yes | head -c 1000000; echo end"}, seconds(10));
  EXPECT_LE(output.size(), 64U * 1024);
  EXPECT_TRUE(output.ends_with("end"));
}

}  // namespace
}  // namespace convoy
