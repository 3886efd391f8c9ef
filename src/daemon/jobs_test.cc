#include "daemon/jobs.h"

#include <atomic>

#include <gtest/gtest.h>

namespace convoy {
namespace {

using namespace std::chrono_literals;

std::string work_until_cancelled(Job& job) {
  while (!job.stop_token().stop_requested()) std::this_thread::sleep_for(1ms);
  throw Error(ErrorKind::kCancelled, "cancelled");
}

TEST(Jobs, GiveTheirResult) {
  Jobs jobs;
  const auto job = jobs.start("backup", "s1", [](Job&) { return std::string("done"); });
  EXPECT_EQ(job->result(), "done");
  EXPECT_TRUE(jobs.running().empty());
}

TEST(Jobs, GiveTheirError) {
  Jobs jobs;
  const auto job = jobs.start(
      "backup", "s1", [](Job&) -> std::string { throw Error(ErrorKind::kNoSpace, "full"); });
  try {
    job->result();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNoSpace);
  }
}

TEST(Jobs, ShowTheirProgressWhileTheyRun) {
  Jobs jobs;
  std::atomic<bool> reported = false;
  const auto job = jobs.start("backup", "s1", [&](Job& self) {
    self.report({5, 10});
    reported = true;
    return work_until_cancelled(self);
  });
  while (!reported) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(job->progress(), (JobProgress{5, 10}));
  EXPECT_FALSE(job->wait(1ms));
  ASSERT_EQ(jobs.running().size(), 1U);
  jobs.cancel(job->id());
  EXPECT_THROW(job->result(), Error);
  EXPECT_THROW(jobs.cancel(job->id()), Error);
}

TEST(Jobs, AreCancelledAndWaitedForWhenAllStop) {
  Jobs jobs;
  const auto first = jobs.start("backup", "s1", work_until_cancelled);
  const auto second = jobs.start("backup", "s2", work_until_cancelled);
  jobs.stop();
  EXPECT_TRUE(first->wait(0ms));
  EXPECT_TRUE(second->wait(0ms));
  EXPECT_THROW(jobs.start("backup", "s3", work_until_cancelled), Error);
}

}  // namespace
}  // namespace convoy
