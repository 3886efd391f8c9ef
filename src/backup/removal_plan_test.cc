#include "backup/removal_plan.h"

#include <fmt/format.h>

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

  RemovalPlan plan_of_packs(const PackSet& packs) {
    return {.key = json_key(lineage_, LineagePart::kPlans, Uuid::generate()),
            .put = {},
            .packs = packs,
            .rewrites = {},
            .known = {}};
  }

  TestDevice device_{512 * kKiB};
  BackupRecord parent_;
};

TEST_F(PlanTest, OfADeadRemoverDoesNotStopBackupsOnAParentThatIsThere) {
  PackSet packs;
  packs.insert(parent_.packs.begin()->first);
  put_plan(store_, plan_of_packs(packs));
  back_up_all(device_, parent_);
  EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
  check_backups();
}

TEST_F(PlanTest, IsIgnoredIfItIsDamaged) {
  const std::string key = json_key(lineage_, LineagePart::kPlans, Uuid::generate());
  objects_.put(key, as_bytes(R"({"version":1,"packs":{"../../x":{}},"rewrites":{},"known":[]})"));
  const BackupRecord second = back_up_all(device_, parent_);
  delete_and_forget(second.info.uuid);
  EXPECT_FALSE(objects_.head(key));
  check_backups();
  check_nothing_is_left_over();
}

TEST_F(PlanTest, ComesBackAsItWasPut) {
  RemovalPlan plan = plan_of_packs({});
  const Uuid one = Uuid::generate(), two = Uuid::generate();
  // As many as a backup of a PiB has.
  plan.packs.insert_range({PackKind::kData, one, 0}, 67'000'000);
  plan.packs.insert({PackKind::kTree, one, 5});
  plan.packs.insert({PackKind::kData, two, UINT32_MAX});
  plan.rewrites.insert({PackKind::kTree, two, 1});
  plan.known = {one, two};
  put_plan(store_, plan);
  EXPECT_LT(objects_.objects().at(plan.key).data.size(), 1000U);
  const auto found = list_plans(store_, lineage_);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].packs.ranges(), plan.packs.ranges());
  EXPECT_EQ(found[0].rewrites.ranges(), plan.rewrites.ranges());
  EXPECT_EQ(found[0].known, plan.known);
}

TEST_F(PlanTest, NamesNothingUnlessItsRangesAreInOrder) {
  const Uuid backup = Uuid::generate();
  const auto names_any = [&](const std::string& ranges) {
    const std::string key = json_key(lineage_, LineagePart::kPlans, Uuid::generate());
    objects_.put(key,
                 as_bytes(fmt::format(
                     R"({{"version":1,"packs":{{"{}":{{"data":{}}}}},"rewrites":{{}},"known":[]}})",
                     backup.to_string(), ranges)));
    const auto plans = list_plans(store_, lineage_);
    objects_.remove(key);
    return !plans.at(0).packs.empty();
  };
  EXPECT_TRUE(names_any("[[0,1],[3,3]]"));
  for (const char* const ranges :
       {"[[1,0]]", "[[0,1],[1,2]]", "[[5,5],[3,3]]", "[[0]]", "[[0,1,2]]", "[[-1,1]]", "[0,1]", "7",
        "[[0,4294967296]]", "[[0,1.5]]"})
    EXPECT_FALSE(names_any(ranges)) << ranges;
}

TEST_F(PlanTest, HasNoMoreThanReadersTake) {
  const Uuid dead = Uuid::generate();
  MemoryStore::Objects objects = objects_.objects();
  for (std::uint32_t i = 0; i < 2 * kMaxRangesInPlan + 20; i += 2)
    objects[pack_key(lineage_, {PackKind::kData, dead, i})] = {.data = {}, .modified = now()};
  objects_.set_objects(std::move(objects));
  objects_.advance(std::chrono::hours(25));
  const auto left = [&] { return pack_keys().size() - parent_.packs.size(); };
  const auto collect = [&] {
    collect_garbage(store_, lineage_, CollectionMode::kWhatNobodyRefersTo, {}, {});
  };
  EXPECT_EQ(left(), kMaxRangesInPlan + 10);
  collect();
  EXPECT_EQ(left(), 10U);
  collect();
  EXPECT_EQ(left(), 0U);
  check_nothing_is_left_over();

  RemovalPlan plan = plan_of_packs({});
  for (std::uint32_t i = 0; i <= kMaxRangesInPlan; ++i)
    plan.packs.insert({PackKind::kData, dead, 2 * i});
  put_plan(store_, plan);
  EXPECT_TRUE(list_plans(store_, lineage_).at(0).packs.empty());
}

TEST_F(PlanTest, NeverRemovesWhatABackupRefersTo) {
  PackSet packs;
  for (const auto& [pack, use] : parent_.packs) packs.insert(pack);
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
