#include "backup/lease.h"

#include <atomic>
#include <thread>

#include "backup/backup_testing.h"

namespace convoy {
namespace {

using testing::IsEmpty;
using Call = MemoryStore::Call;
using std::chrono::hours;

class LeaseTest : public BackupTest {
 protected:
  const Uuid backup_ = Uuid::generate();

  std::vector<std::string> lease_keys() {
    return keys_under(prefix_of(lineage_, LineagePart::kLeases));
  }

  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 5000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return condition();
  }
};

TEST_F(LeaseTest, IsRenewedAndTriedAgainAndThenRemoved) {
  std::atomic<int> puts = 0;
  objects_.hook = [&](Call call, const std::string&) {
    if (call == Call::kPut && ++puts == 2) throw Error(ErrorKind::kIo, "a passing failure");
  };
  const Store store =
      Store::open(objects_, StoreTimes{.lease_renewal = std::chrono::milliseconds(1)});
  Lease lease(store, lineage_, {.backup = backup_, .builds_on = {}});
  EXPECT_TRUE(eventually([&] { return puts > 4; }));
  lease.check();
  lease.release();
  EXPECT_THAT(lease_keys(), IsEmpty());
  const int puts_so_far = puts;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(puts, puts_so_far);
}

TEST_F(LeaseTest, KnowsALapseFromThenOn) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.advance(kLeaseDuration - std::chrono::milliseconds(1));
  lease.renew();
  objects_.advance(kLeaseDuration);
  lease.check();  // nothing is known yet
  EXPECT_EQ(error_of([&] { lease.renew(); }).kind(), ErrorKind::kUnavailable);
  EXPECT_THROW(lease.renew(), Error);
  EXPECT_THROW(lease.check(), Error);
}

TEST_F(LeaseTest, TakesAClockSetBackForALapse) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.advance(-hours(1));
  EXPECT_THROW(lease.renew(), Error);
}

TEST_F(LeaseTest, ThatWasRemovedHasLapsed) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.hook = [&](Call call, const std::string& key) {
    if (call == Call::kHead) objects_.remove(key);
  };
  EXPECT_THROW(lease.renew(), Error);
  objects_.hook = nullptr;
}

TEST_F(LeaseTest, IsAliveToOthersLongerThanToItsWriter) {
  const Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {Uuid::generate()}});
  const auto found = list_leases(store_, lineage_);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].record->backup, backup_);
  EXPECT_EQ(found[0].record->builds_on.size(), 1U);
  const Timestamp renewed = found[0].renewed;
  EXPECT_TRUE(may_be_alive(found[0], renewed + kLeaseDuration, store_.times()));
  EXPECT_FALSE(may_be_alive(found[0], renewed + kLeaseDuration + kLeaseRenewal, store_.times()));
}

TEST_F(LeaseTest, ThatCantBeUnderstoodKeepsEverythingWhileItIsAlive) {
  TestDevice device(kMiB);
  device.write(0, noise(1, kMiB));
  const BackupRecord record = back_up_all(device);
  const std::string key = json_key(lineage_, LineagePart::kLeases, Uuid::generate());
  objects_.put(key, as_bytes("{\"version\":2}"));
  const auto packs = pack_keys();
  delete_and_forget(record.info.uuid);
  EXPECT_EQ(pack_keys(), packs);

  objects_.advance(hours(25));
  delete_and_forget(back_up_all(device).info.uuid);
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
}

}  // namespace
}  // namespace convoy
