// Who gets the pool's one metadata snapshot, and who gives it back.
#include "volumes/metadata_snapshots.h"

#include <chrono>
#include <filesystem>
#include <future>
#include <optional>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "catalog/catalog.h"
#include "volumes/file_thin_pool.h"

namespace convoy {
namespace {

using testing::HasSubstr;

// A pool that counts its metadata snapshots, and does not give them back when it is told so.
class CountingPool : public FileThinPool {
 public:
  using FileThinPool::FileThinPool;

  PoolStatus status() override {
    PoolStatus status = FileThinPool::status();
    status.mode = mode;
    status.transaction_id = transaction_id;
    return status;
  }
  void reserve_metadata_snapshot() override {
    FileThinPool::reserve_metadata_snapshot();
    ++reserved;
  }
  void release_metadata_snapshot() override {
    if (fails_to_release) throw Error(ErrorKind::kIo, "the pool does not answer");
    FileThinPool::release_metadata_snapshot();
    ++released;
  }

  PoolStatus::Mode mode = PoolStatus::Mode::kReadWrite;
  std::uint64_t transaction_id = 1;
  bool fails_to_release = false;
  int reserved = 0;
  int released = 0;
};

class MetadataSnapshot : public testing::Test {
 protected:
  ~MetadataSnapshot() override { std::filesystem::remove_all(directory_); }

  Error error_of_hold() {
    try {
      snapshots_.hold(0);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "it was held";
    return Error(ErrorKind::kInternal, "");
  }

  std::filesystem::path directory_ =
      std::filesystem::path(testing::TempDir()) / fmt::format("metadata-snapshots-{}", ::getpid());
  CountingPool pool_{directory_};
  Catalog catalog_{directory_ / "catalog.db"};
  MetadataSnapshots snapshots_{catalog_, pool_};
};

TEST_F(MetadataSnapshot, IsSharedByThoseThatItIsNewEnoughFor) {
  pool_.transaction_id = 8;
  std::optional first = snapshots_.hold(7);
  EXPECT_EQ(first->root(), Root::kHeld);
  std::optional second = snapshots_.hold(3);
  EXPECT_EQ(pool_.reserved, 1);
  first.reset();
  EXPECT_EQ(pool_.released, 0);
  second.reset();
  EXPECT_EQ(pool_.released, 1);
}

TEST_F(MetadataSnapshot, IsNotedForTheStartAfterAPowerCut) {
  PoolRow pool;
  pool.name = "pool";
  catalog_.insert_pool(pool);
  const std::uint64_t block = [&] {
    const MetadataSnapshots::Hold held = snapshots_.hold(0);
    return pool_.status().metadata_snapshot;
  }();
  EXPECT_NE(block, 0U);
  EXPECT_EQ(catalog_.pool()->metadata_snapshot, block);  // also when it is released
}

TEST_F(MetadataSnapshot, ThatCanNotBeNotedIsGivenBack) {
  SQLite::Database((directory_ / "catalog.db").native(), SQLite::OPEN_READWRITE)
      .exec("ALTER TABLE pool DROP COLUMN metadata_snapshot");
  EXPECT_THROW(snapshots_.hold(0), Error);
  EXPECT_EQ(pool_.released, 1);
}

TEST_F(MetadataSnapshot, IsWaitedForByOneThatItIsTooOldFor) {
  pool_.transaction_id = 8;
  std::optional old = snapshots_.hold(7);
  pool_.transaction_id = 9;
  auto young = std::async(std::launch::async, [&] { return snapshots_.hold(8); });
  EXPECT_EQ(young.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  old.reset();
  const MetadataSnapshots::Hold held = young.get();
  EXPECT_EQ(pool_.reserved, 2);
  EXPECT_EQ(pool_.released, 1);
}

TEST_F(MetadataSnapshot, ThatCouldNotBeReleasedIsReleasedByTheNext) {
  pool_.fails_to_release = true;
  {
    const MetadataSnapshots::Hold lost = snapshots_.hold(0);
  }
  pool_.fails_to_release = false;
  {
    const MetadataSnapshots::Hold next = snapshots_.hold(0);
    EXPECT_EQ(pool_.released, 1);
    EXPECT_EQ(pool_.reserved, 2);
  }
  EXPECT_EQ(pool_.released, 2);
}

TEST_F(MetadataSnapshot, OfAnotherProgramIsLeftToItAndNamed) {
  pool_.reserve_metadata_snapshot();
  const Error error = error_of_hold();
  EXPECT_EQ(error.kind(), ErrorKind::kBusy);
  EXPECT_THAT(error.what(), HasSubstr("another program holds the pool's metadata snapshot"));
  EXPECT_EQ(pool_.released, 0);
  pool_.release_metadata_snapshot();
  EXPECT_EQ(snapshots_.hold(0).root(), Root::kHeld);
}

TEST_F(MetadataSnapshot, IsNotNeededOfAReadOnlyPoolWhileItStaysSo) {
  pool_.mode = PoolStatus::Mode::kReadOnly;
  const MetadataSnapshots::Hold live = snapshots_.hold(0);
  EXPECT_EQ(live.root(), Root::kLive);
  EXPECT_EQ(pool_.reserved, 0);
  EXPECT_NO_THROW(live.check());
  pool_.mode = PoolStatus::Mode::kReadWrite;
  EXPECT_THROW(live.check(), Error);
}

TEST_F(MetadataSnapshot, IsNotToBeHadOfAPoolThatHasFailed) {
  pool_.mode = PoolStatus::Mode::kFailed;
  EXPECT_EQ(error_of_hold().kind(), ErrorKind::kUnavailable);
  EXPECT_EQ(pool_.reserved, 0);
}

}  // namespace
}  // namespace convoy
