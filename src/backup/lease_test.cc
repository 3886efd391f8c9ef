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
  lease.release(Lease::Leaves::kNothing);
  EXPECT_THAT(lease_keys(), IsEmpty());
  const int puts_so_far = puts;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(puts, puts_so_far);
}

TEST_F(LeaseTest, KnowsItsRevocationFromTheNextRenewalOn) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.advance(hours(1));
  lease.renew();
  revoke(store_, lineage_, backup_);
  lease.check();  // nothing is known yet
  EXPECT_EQ(error_of([&] { lease.renew(); }).kind(), ErrorKind::kUnavailable);
  EXPECT_THROW(lease.check(), Error);
  EXPECT_THAT(list_leases(store_, lineage_), IsEmpty());  // though it was put again
}

TEST_F(LeaseTest, KnowsItsRevocationWhenItLooks) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  lease.check_store();
  revoke(store_, lineage_, backup_);
  EXPECT_THROW(lease.check_store(), Error);
  EXPECT_THROW(lease.check(), Error);
}

TEST_F(LeaseTest, EndsForWhomSleepsSoLongThatARevocationMayHaveComeAndGone) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.advance(kRevocationAge / 2 - std::chrono::minutes(1));
  lease.renew();
  objects_.advance(kRevocationAge / 2);
  EXPECT_THROW(lease.renew(), Error);
  Lease late(store_, lineage_, {.backup = Uuid::generate(), .builds_on = {}});
  objects_.advance(kRevocationAge);
  late.check_store();  // there is no record
  EXPECT_THROW(late.renew(), Error);
}

// The revocation may have been removed since.
TEST_F(LeaseTest, EndsForWhomDoesNotFindItAnyMore) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  lease.look();
  objects_.remove(json_key(lineage_, LineagePart::kLeases, backup_));
  EXPECT_EQ(error_of([&] { lease.look(); }).kind(), ErrorKind::kUnavailable);
  Lease late(store_, lineage_, {.backup = Uuid::generate(), .builds_on = {}});
  for (const std::string& key : lease_keys()) objects_.remove(key);
  EXPECT_EQ(error_of([&] { late.renew(); }).kind(), ErrorKind::kUnavailable);
}

TEST_F(LeaseTest, IsRevokedOnceHoweverOftenThatIsDone) {
  revoke(store_, lineage_, backup_);
  const auto first = revocation_of(store_, lineage_, backup_);
  objects_.advance(hours(1));
  revoke(store_, lineage_, backup_);
  EXPECT_EQ(revocation_of(store_, lineage_, backup_), first);
}

TEST_F(LeaseTest, CountsAsDeadWhenItWasNotRenewedForLong) {
  const Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {Uuid::generate()}});
  const auto found = list_leases(store_, lineage_);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].record->backup, backup_);
  EXPECT_EQ(found[0].record->builds_on.size(), 1U);
  const Timestamp renewed = found[0].renewed;
  EXPECT_FALSE(is_dead(found[0], renewed + kLeaseDuration, store_.times()));
  EXPECT_TRUE(is_dead(found[0], renewed + kLeaseDuration + kLeaseRenewal, store_.times()));
}

TEST_F(LeaseTest, OfACompleteBackupIsOnlyRemoved) {
  TestDevice device(kMiB);
  device.write(0, noise(1, kMiB));
  const BackupRecord record = back_up_all(device);
  const Lease lease(store_, lineage_, {.backup = record.info.uuid, .builds_on = {}});
  revoke(store_, lineage_, record.info.uuid);
  EXPECT_THAT(lease_keys(), IsEmpty());
  EXPECT_EQ(backups_of(store_, lineage_).size(), 1U);
}

TEST_F(LeaseTest, RevocationsMakeVoidWhatIsCommittedAfterThemOnly) {
  TestDevice device(kMiB);
  device.write(0, noise(1, kMiB));
  const BackupRecord before = back_up_all(device);
  const BackupRecord after = back_up_all(device, before);
  const auto revocation_of_both = [&] {
    for (const BackupRecord* const record : {&before, &after})
      objects_.put(revocation_key(lineage_, record->info.uuid), as_bytes("{}"));
  };
  revocation_of_both();
  EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
  objects_.advance(std::chrono::milliseconds(1));
  const std::string key = backup_key(lineage_, after.info.uuid);
  objects_.put(key, objects_.get(key, kMaxStoreJson));
  EXPECT_EQ(backups_of(store_, lineage_), std::vector{before.info.uuid});
  EXPECT_EQ(void_backups_of(store_, lineage_), std::vector{after.info.uuid});
  EXPECT_EQ(list_backups(store_, std::nullopt).backups.size(), 1U);
  EXPECT_EQ(error_of([&] { read_backup(store_, lineage_, after.info.uuid); }).kind(),
            ErrorKind::kNotFound);
  EXPECT_EQ(read_backup(store_, lineage_, before.info.uuid).info.uuid, before.info.uuid);
  EXPECT_EQ(error_of([&] { back_up_all(device, after); }).kind(), ErrorKind::kNotFound);
}

// Its writer may have looked for a revocation before that could be seen.
TEST_F(LeaseTest, RevocationsDoNotMakeVoidWhatIsCommittedWithinTheLag) {
  objects_.lag = std::chrono::milliseconds(10);
  TestDevice device(kMiB);
  const BackupRecord record = back_up_all(device);
  const std::string key = backup_key(lineage_, record.info.uuid);
  const Bytes text = objects_.get(key, kMaxStoreJson);
  objects_.put(revocation_key(lineage_, record.info.uuid), as_bytes("{}"));
  objects_.advance(std::chrono::milliseconds(9));
  objects_.put(key, text);
  EXPECT_EQ(backups_of(store_, lineage_).size(), 1U);
  read_backup(store_, lineage_, record.info.uuid);
  objects_.put(key, text);
  EXPECT_THAT(backups_of(store_, lineage_), IsEmpty());
  EXPECT_THROW(read_backup(store_, lineage_, record.info.uuid), Error);
}

TEST_F(LeaseTest, RevocationsEndAfterAMonth) {
  revoke(store_, lineage_, backup_);
  TestDevice device(kMiB);
  const auto collect = [&] {
    collect_garbage(store_, lineage_, CollectionMode::kWhatNobodyRefersTo, {}, {});
  };
  objects_.advance(kRevocationAge - std::chrono::minutes(1));
  collect();
  EXPECT_EQ(lease_keys().size(), 1U);
  objects_.advance(std::chrono::minutes(1));
  collect();
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
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
  EXPECT_THAT(pack_keys(), IsEmpty());
  check_nothing_is_left_over();
}

}  // namespace
}  // namespace convoy
