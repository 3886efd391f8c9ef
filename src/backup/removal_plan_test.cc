#include "backup/removal_plan.h"

#include "backup/backup_testing.h"

namespace convoy {
namespace {

// A remover's plan, as one that has just died would leave it.
class PlanTest : public BackupTest {
 protected:
  PlanTest() {
    device_.write(0, noise(1, 512 * kKiB));
    parent_ = back_up_all(device_);
    device_.write(8 * kKiB, noise(2, 100));  // the rest stays the parent's
  }

  RemovalPlan plan_of_packs(std::vector<PackName> packs) {
    return {.key = json_key(lineage_, LineagePart::kPlans, Uuid::generate()),
            .put = {},
            .packs = std::move(packs),
            .rewrites = {},
            .known = {}};
  }

  TestDevice device_{512 * kKiB};
  BackupRecord parent_;
};

TEST_F(PlanTest, OfADeadRemoverDoesNotStopBackupsOnAParentThatIsThere) {
  put_plan(store_, plan_of_packs({parent_.packs.begin()->first}));
  back_up_all(device_, parent_);
  EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
  check_backups();
}

TEST_F(PlanTest, IsIgnoredIfItIsDamaged) {
  const std::string key = json_key(lineage_, LineagePart::kPlans, Uuid::generate());
  objects_.put(key, as_bytes("{\"version\":1,\"packs\":[\"../../x\"],\"rewrites\":[]}"));
  const BackupRecord second = back_up_all(device_, parent_);
  delete_and_forget(second.info.uuid);
  EXPECT_FALSE(objects_.head(key));
  check_backups();
  check_nothing_is_left_over();
}

TEST_F(PlanTest, NeverRemovesWhatABackupRefersTo) {
  std::vector<PackName> packs;
  for (const auto& [pack, use] : parent_.packs) packs.push_back(pack);
  put_plan(store_, plan_of_packs(packs));
  delete_and_forget(back_up_all(device_, parent_).info.uuid);
  check_backups();
  objects_.advance(kRevocationAge);  // nobody can be so slow
  collect_garbage(store_, lineage_, CollectionMode::kWhatNobodyRefersTo, {}, {});
  check_backups();
  check_nothing_is_left_over();
}

}  // namespace
}  // namespace convoy
