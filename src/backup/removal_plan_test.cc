#include "backup/removal_plan.h"

#include "backup/backup_testing.h"

namespace convoy {
namespace {

using testing::HasSubstr;
using Call = MemoryStore::Call;

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
            .packs = std::move(packs)};
  }

  // Puts the plan just before a backup reads the plans.
  Error back_up_with(const std::function<RemovalPlan(const Uuid& backup)>& plan_for) {
    Uuid backup;
    objects_.hook = [&, this](Call call, const std::string& key) {
      if (call == Call::kPut && key.ends_with(".tree")) {
        backup = parse_pack_name(key.substr(key.rfind('/') + 1))->backup;
      }
      if (call == Call::kList && key == prefix_of(lineage_, LineagePart::kPlans)) {
        put_plan(store_, plan_for(backup));
      }
    };
    const Error error = error_of([&] { back_up_all(device_, parent_); });
    objects_.hook = nullptr;
    return error;
  }

  TestDevice device_{512 * kKiB};
  BackupRecord parent_;
};

TEST_F(PlanTest, ThatNamesAPackOfTheBackupsOwnMakesItFail) {
  const Error error = back_up_with(
      [&](const Uuid& backup) { return plan_of_packs({{PackKind::kData, backup, 0}}); });
  EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr("is being removed"));
  check_backups();
}

TEST_F(PlanTest, ThatNamesAPackOfADeletedParentMakesTheBackupFail) {
  const Error error = back_up_with([&](const Uuid&) {
    objects_.remove(json_key(lineage_, LineagePart::kBackups, parent_.info.uuid));
    return plan_of_packs({parent_.packs.begin()->first});
  });
  EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr(to_string(parent_.packs.begin()->first)));
}

TEST_F(PlanTest, OfADeadRemoverDoesNotStopBackupsOnAParentThatIsThere) {
  const Error error =
      back_up_with([&](const Uuid&) { return plan_of_packs({parent_.packs.begin()->first}); });
  EXPECT_EQ(error.message(), "no error was thrown");
  EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
  check_backups();
}

TEST_F(PlanTest, IsIgnoredIfItIsDamaged) {
  const std::string key = json_key(lineage_, LineagePart::kPlans, Uuid::generate());
  objects_.put(key, as_bytes("{\"version\":1,\"packs\":[\"../../x\"]}"));
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
  check_nothing_is_left_over();
}

}  // namespace
}  // namespace convoy
