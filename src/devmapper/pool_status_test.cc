#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "devmapper/thin_pool.h"

namespace convoy {
namespace {

using ::testing::HasSubstr;

TEST(PoolStatus, IsReadFromTheKernelsLine) {
  const PoolStatus status =
      parse_pool_status("5 41/1024 12/640 - rw discard_passdown error_if_no_space - 1024 ");
  EXPECT_EQ(status.transaction_id, 5U);
  EXPECT_EQ(status.used_metadata_blocks, 41U);
  EXPECT_EQ(status.total_metadata_blocks, 1024U);
  EXPECT_EQ(status.used_data.count, 12U);
  EXPECT_EQ(status.total_data.count, 640U);
  EXPECT_EQ(status.metadata_snapshot, 0U);
  EXPECT_EQ(status.mode, PoolStatus::Mode::kReadWrite);
  EXPECT_FALSE(status.needs_check);
}

TEST(PoolStatus, KnowsAHeldSnapshotAndAPoolInTrouble) {
  const PoolStatus status = parse_pool_status(
      "5 41/1024 12/640 77 ro no_discard_passdown queue_if_no_space needs_check 1024");
  EXPECT_EQ(status.metadata_snapshot, 77U);
  EXPECT_EQ(status.mode, PoolStatus::Mode::kReadOnly);
  EXPECT_TRUE(status.needs_check);
  EXPECT_EQ(parse_pool_status(
                "5 41/1024 640/640 - out_of_data_space discard_passdown error_if_no_space - 1024")
                .mode,
            PoolStatus::Mode::kOutOfDataSpace);
  EXPECT_EQ(parse_pool_status("Fail").mode, PoolStatus::Mode::kFailed);
}

TEST(PoolStatus, TellsWhyThePoolCanNotBeChanged) {
  const auto refusal = [](PoolStatus::Mode mode) {
    PoolStatus status;
    status.mode = mode;
    try {
      require_writable(status);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(PoolStatus::Mode::kReadWrite), "");
  EXPECT_EQ(refusal(PoolStatus::Mode::kOutOfDataSpace), "");  // a delete makes room
  EXPECT_THAT(refusal(PoolStatus::Mode::kReadOnly), HasSubstr("the pool is read-only"));
  EXPECT_THAT(refusal(PoolStatus::Mode::kFailed), HasSubstr("the pool has failed"));
}

TEST(PoolStatus, RefusesOtherForms) {
  for (const char* text :
       {"", "5", "5 41 12/640 - rw a b -", "5 41/1024 12/640 - strange a b - 1"}) {
    EXPECT_THROW(parse_pool_status(text), Error) << text;
  }
}

}  // namespace
}  // namespace convoy
