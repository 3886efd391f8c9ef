#include "catalog/catalog.h"

#include <algorithm>
#include <cctype>
#include <fstream>

#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "catalog/catalog_copy.h"

namespace convoy {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

class CatalogTest : public testing::Test {
 protected:
  CatalogTest() {
    open();
    PoolRow pool;
    pool.uuid = Uuid::generate();
    pool.name = "convoy-pool";
    pool.transaction_id = 1000;
    catalog_->insert_pool(pool);
  }
  ~CatalogTest() override { std::filesystem::remove_all(directory_); }

  void open() {
    catalog_.reset();
    catalog_ = std::make_unique<Catalog>(directory_ / "catalog.db");
  }

  VolumeRow begin_volume(const std::string& name) {
    VolumeRow volume;
    volume.uuid = volume.lineage = Uuid::generate();
    volume.name = name;
    volume.size = 1 << 20;
    volume.filesystem = "ext4";
    return catalog_->begin_create(volume);
  }

  VolumeRow create_volume(const std::string& name) {
    const VolumeRow volume = begin_volume(name);
    catalog_->finish_intent();
    catalog_->set_state(volume.uuid, DeviceState::kReady);
    return volume;
  }

  SnapshotRow create_snapshot(const VolumeRow& volume, const std::string& name) {
    SnapshotRow snapshot;
    snapshot.uuid = Uuid::generate();
    snapshot.name = name;
    snapshot.volume = volume.uuid;
    snapshot = catalog_->begin_create(snapshot);
    catalog_->finish_intent();
    catalog_->set_state(snapshot.uuid, DeviceState::kReady);
    return snapshot;
  }

  std::string message_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const Error& error) {
      return error.message();
    }
    return "";
  }

  std::filesystem::path directory_ = [] {
    std::string name = (std::filesystem::temp_directory_path() / "catalog-test-XXXXXX").native();
    return std::filesystem::path(mkdtemp(name.data()));
  }();
  std::unique_ptr<Catalog> catalog_;
};

TEST_F(CatalogTest, KeepsEverythingWhenItIsOpenedAgain) {
  const VolumeRow volume = create_volume("db");
  const SnapshotRow snapshot = create_snapshot(volume, "s1");
  catalog_->set_creation_time(snapshot.uuid, 7);
  open();
  EXPECT_EQ(catalog_->find_volume("db").uuid, volume.uuid);
  EXPECT_EQ(catalog_->find_snapshot("s1").creation_time, 7U);
  EXPECT_EQ(catalog_->find_snapshot("s1").transaction_id, 1001U);
  EXPECT_EQ(catalog_->pool()->transaction_id, 1002U);
}

TEST_F(CatalogTest, RefusesACatalogOfALaterVersion) {
  catalog_.reset();
  SQLite::Database((directory_ / "catalog.db").native(), SQLite::OPEN_READWRITE)
      .exec("PRAGMA user_version = 99");
  EXPECT_THAT(message_of([&] { open(); }), HasSubstr("newer version"));
}

TEST_F(CatalogTest, BringsOneOfTheFirstVersionUpToDate) {
  create_volume("db");
  catalog_.reset();
  SQLite::Database((directory_ / "catalog.db").native(), SQLite::OPEN_READWRITE)
      .exec(
          "ALTER TABLE pool DROP COLUMN low_watermark;"
          "ALTER TABLE pool DROP COLUMN when_full;"
          "ALTER TABLE pool DROP COLUMN metadata_snapshot;"
          "PRAGMA user_version = 1");
  open();
  PoolRow pool = catalog_->pool().value();
  EXPECT_EQ(pool.low_watermark, 80U);
  EXPECT_FALSE(pool.queue_when_full);
  pool.low_watermark = 70;
  pool.queue_when_full = true;
  catalog_->set_pool_settings(pool);
  EXPECT_EQ(pool.metadata_snapshot, 0U);
  catalog_->set_metadata_snapshot(77);
  open();
  EXPECT_EQ(catalog_->pool()->metadata_snapshot, 77U);
  EXPECT_EQ(catalog_->pool()->low_watermark, 70U);
  EXPECT_TRUE(catalog_->pool()->queue_when_full);
  EXPECT_EQ(catalog_->find_volume("db").name, "db");
}

TEST_F(CatalogTest, FindsByNameByUuidAndByTheStartOfAUuid) {
  const VolumeRow volume = create_volume("db");
  const std::string uuid = volume.uuid.to_string();
  EXPECT_EQ(catalog_->find_volume(uuid).name, "db");
  EXPECT_EQ(catalog_->find_volume(uuid.substr(0, 20)).name, "db");
  std::string capitals = uuid;
  std::ranges::transform(capitals, capitals.begin(),
                         [](unsigned char c) { return std::toupper(c); });
  EXPECT_EQ(catalog_->find_volume(capitals).name, "db");
  EXPECT_EQ(message_of([&] { catalog_->find_volume("nothing"); }), "there is no volume 'nothing'");
  EXPECT_THROW(catalog_->find_volume(uuid.substr(0, 3)), Error);
  EXPECT_THROW(catalog_->find_volume("%"), Error);
  EXPECT_THROW(catalog_->find_volume(""), Error);
  EXPECT_THROW(catalog_->find_snapshot("db"), Error);
}

TEST_F(CatalogTest, ANameGoesBeforeTheStartOfAUuid) {
  const VolumeRow first = create_volume("db");
  const std::string prefix = first.uuid.to_string().substr(0, 8);
  create_volume(prefix);
  EXPECT_EQ(catalog_->find_volume(prefix).name, prefix);
}

TEST_F(CatalogTest, SaysWhenAStartIsAmbiguous) {
  const std::string prefix = create_volume("a").uuid.to_string().substr(0, 5);
  create_volume("b");
  EXPECT_THAT(message_of([&] { catalog_->find_volume(prefix); }), HasSubstr("give more of it"));
}

TEST_F(CatalogTest, HidesWhatIsNotReady) {
  const VolumeRow volume = begin_volume("db");
  catalog_->finish_intent();
  EXPECT_THROW(catalog_->find_volume("db"), Error);
  EXPECT_EQ(message_of([&] { begin_volume("db"); }), "a volume named 'db' is being created");
  catalog_->set_state(volume.uuid, DeviceState::kReady);
  EXPECT_EQ(message_of([&] { begin_volume("db"); }), "a volume named 'db' exists already");
}

TEST_F(CatalogTest, VolumesAndSnapshotsShareOneSpaceOfNames) {
  const VolumeRow volume = create_volume("db");
  EXPECT_EQ(message_of([&] { create_snapshot(volume, "db"); }),
            "a volume named 'db' exists already");
  create_snapshot(volume, "s1");
  EXPECT_EQ(message_of([&] { begin_volume("s1"); }), "a snapshot named 's1' exists already");
}

TEST_F(CatalogTest, AnIntentIsOneStepOfThePool) {
  const VolumeRow volume = begin_volume("db");
  const auto intent = catalog_->intent();
  ASSERT_TRUE(intent);
  EXPECT_EQ(intent->device, volume.uuid);
  EXPECT_EQ(intent->thin_id, volume.thin_id);
  EXPECT_EQ(intent->transaction_id, 1000U);
  EXPECT_THROW(begin_volume("other"), Error);  // one at a time
  catalog_->finish_intent();
  EXPECT_FALSE(catalog_->intent());
  EXPECT_EQ(catalog_->pool()->transaction_id, 1001U);
}

TEST_F(CatalogTest, AnAbandonedCreateLeavesNothing) {
  begin_volume("db");
  catalog_->abandon_intent();
  EXPECT_FALSE(catalog_->intent());
  EXPECT_TRUE(catalog_->volumes().empty());
  EXPECT_EQ(catalog_->pool()->transaction_id, 1000U);
  create_volume("db");
}

TEST_F(CatalogTest, AFinishedDeleteTakesTheRowsAlong) {
  const VolumeRow volume = create_volume("db");
  const SnapshotRow snapshot = create_snapshot(volume, "s1");
  const Uuid store = Uuid::generate();
  catalog_->add_backup(Uuid::generate(), store, snapshot.uuid);
  catalog_->add_user(volume.uuid, {}, "/mnt");
  catalog_->set_state_with_snapshots(volume.uuid, DeviceState::kDeleting);
  EXPECT_THROW(catalog_->find_snapshot("s1"), Error);
  for (const Uuid& device : {snapshot.uuid, volume.uuid}) {
    catalog_->begin_delete(device);
    catalog_->finish_intent();
  }
  EXPECT_TRUE(catalog_->volumes().empty());
  EXPECT_TRUE(catalog_->snapshots().empty());
  EXPECT_FALSE(catalog_->newest_backup(store, volume.uuid));
}

TEST_F(CatalogTest, ThinIdsAreUsedAgainAsLateAsPossible) {
  const VolumeRow first = create_volume("a");
  catalog_->set_state(first.uuid, DeviceState::kDeleting);
  catalog_->begin_delete(first.uuid);
  catalog_->finish_intent();
  EXPECT_NE(create_volume("b").thin_id, first.thin_id);
}

TEST_F(CatalogTest, DockerUsersOfAnotherBootAreForgottenAndTheCommandLinesAreNot) {
  const VolumeRow volume = create_volume("db");
  const VolumeUser command{VolumeUser::Kind::kCommand, "", "boot-1"};
  const VolumeUser now{VolumeUser::Kind::kDocker, "id2", "boot-2"};
  catalog_->add_user(volume.uuid, command, "/mnt");
  catalog_->add_user(volume.uuid, {VolumeUser::Kind::kDocker, "id1", "boot-1"}, "/mnt");
  catalog_->add_user(volume.uuid, now, "/mnt");
  catalog_->forget_users_before("boot-2");
  EXPECT_THAT(catalog_->users(volume.uuid), ElementsAre(command, now));
  catalog_->remove_user(volume.uuid, VolumeUser::Kind::kDocker, "id2");
  EXPECT_THAT(catalog_->users(volume.uuid), ElementsAre(command));
  EXPECT_EQ(catalog_->find_volume("db").mountpoint, "/mnt");
  catalog_->clear_mountpoint(volume.uuid);
  EXPECT_EQ(catalog_->find_volume("db").mountpoint, "");
}

TEST_F(CatalogTest, KnowsTheNewestBackupWhoseSnapshotIsStillHere) {
  const VolumeRow volume = create_volume("db");
  const SnapshotRow old_snapshot = create_snapshot(volume, "s1");
  const SnapshotRow new_snapshot = create_snapshot(volume, "s2");
  const Uuid store = Uuid::generate();
  const Uuid old_backup = *Uuid::parse("01000000-0000-7000-8000-000000000000");
  const Uuid new_backup = *Uuid::parse("02000000-0000-7000-8000-000000000000");
  catalog_->add_backup(new_backup, store, new_snapshot.uuid);
  catalog_->add_backup(old_backup, store, old_snapshot.uuid);
  EXPECT_EQ(catalog_->newest_backup(store, volume.uuid)->backup, new_backup);
  EXPECT_FALSE(catalog_->newest_backup(Uuid::generate(), volume.uuid));
  catalog_->set_state(new_snapshot.uuid, DeviceState::kDeleting);
  EXPECT_EQ(catalog_->newest_backup(store, volume.uuid)->snapshot, old_snapshot.uuid);
  catalog_->forget_backup(old_backup);
  EXPECT_FALSE(catalog_->newest_backup(store, volume.uuid));
}

TEST_F(CatalogTest, AVolumeThatBecameAnOlderBackupKnowsNoNewerOneThere) {
  const VolumeRow volume = create_volume("db");
  const VolumeRow other = create_volume("other");
  const SnapshotRow old_snapshot = create_snapshot(volume, "s1");
  const SnapshotRow new_snapshot = create_snapshot(volume, "s2");
  const SnapshotRow of_other = create_snapshot(other, "s3");
  const Uuid store = *Uuid::parse("00000000-0000-4000-8000-000000000001");
  const Uuid elsewhere = *Uuid::parse("00000000-0000-4000-8000-000000000002");
  const Uuid older = *Uuid::parse("01000000-0000-7000-8000-000000000000");
  const Uuid newer = *Uuid::parse("02000000-0000-7000-8000-000000000000");
  const Uuid newer_elsewhere = *Uuid::parse("03000000-0000-7000-8000-000000000000");
  const Uuid newer_of_other = *Uuid::parse("04000000-0000-7000-8000-000000000000");
  catalog_->add_backup(older, store, old_snapshot.uuid);
  catalog_->add_backup(newer, store, new_snapshot.uuid);
  catalog_->add_backup(newer_elsewhere, elsewhere, new_snapshot.uuid);
  catalog_->add_backup(newer_of_other, store, of_other.uuid);

  catalog_->exchange_thin_devices(volume.uuid, create_volume("unknown").uuid, Uuid::generate());
  EXPECT_EQ(catalog_->newest_backup(store, volume.uuid)->backup, newer);

  catalog_->exchange_thin_devices(volume.uuid, create_volume("copy").uuid, older);
  EXPECT_EQ(catalog_->newest_backup(store, volume.uuid)->backup, older);
  EXPECT_EQ(catalog_->newest_backup(elsewhere, volume.uuid)->backup, newer_elsewhere);
  EXPECT_EQ(catalog_->newest_backup(store, other.uuid)->backup, newer_of_other);
}

TEST_F(CatalogTest, OtherDevicesTakeThePlaceOfAllThereAre) {
  create_snapshot(create_volume("old"), "old-snapshot");
  begin_volume("unfinished");
  VolumeEntry taken;
  taken.volume.uuid = taken.volume.lineage = Uuid::generate();
  taken.volume.name = "db";
  taken.volume.state = DeviceState::kReady;
  taken.volume.thin_id = 3;
  taken.volume.filesystem = "xfs";
  taken.volume.mountpoint = "/mnt";
  taken.users = {{VolumeUser::Kind::kCommand, "", "boot-1"},
                 {VolumeUser::Kind::kDocker, "container", "boot-1"}};
  SnapshotRow snapshot;
  snapshot.uuid = Uuid::generate();
  snapshot.name = "s1";
  snapshot.state = DeviceState::kReady;
  snapshot.thin_id = 4;
  snapshot.volume = taken.volume.uuid;
  snapshot.transaction_id = 0;
  snapshot.creation_time = 9;
  taken.snapshots = {snapshot};
  catalog_->replace_devices({taken}, 17);
  EXPECT_FALSE(catalog_->intent());

  ASSERT_EQ(catalog_->volumes().size(), 1U);
  const VolumeRow volume = catalog_->find_volume("db");
  EXPECT_EQ(volume.thin_id, 3U);
  EXPECT_EQ(volume.mountpoint, "/mnt");
  EXPECT_THAT(catalog_->users(volume.uuid), ElementsAreArray(taken.users));
  ASSERT_EQ(catalog_->snapshots().size(), 1U);
  EXPECT_EQ(catalog_->find_snapshot("s1").transaction_id, 0U);
  EXPECT_EQ(catalog_->find_snapshot("s1").creation_time, 9U);
  EXPECT_EQ(create_volume("new").thin_id, 17U);
}

TEST_F(CatalogTest, BackupsOfSnapshotsThatStayAreKept) {
  VolumeEntry entry{.volume = create_volume("db"), .snapshots = {}, .users = {}};
  const SnapshotRow gone = create_snapshot(entry.volume, "gone");
  const SnapshotRow stays = create_snapshot(entry.volume, "stays");
  const Uuid store = Uuid::generate();
  const Uuid backup = Uuid::generate();
  catalog_->add_backup(backup, store, stays.uuid);
  catalog_->add_backup(Uuid::generate(), store, gone.uuid);
  entry.volume = catalog_->find_volume("db");
  entry.snapshots = {catalog_->find_snapshot("stays")};
  catalog_->replace_devices({entry}, 17);
  EXPECT_EQ(catalog_->newest_backup(store, entry.volume.uuid)->backup, backup);
}

TEST_F(CatalogTest, RefusesOneThatIsDamaged) {
  for (int i = 0; i < 200; ++i) create_volume(fmt::format("db{}", i));
  catalog_.reset();
  const std::filesystem::path file = directory_ / "catalog.db";
  const auto size = std::filesystem::file_size(file);
  const auto kind_of_error = [&] {
    try {
      open();
      return ErrorKind::kInternal;
    } catch (const Error& error) {
      return error.kind();
    }
  };
  std::filesystem::copy(file, directory_ / "whole");
  std::filesystem::resize_file(file, size / 2);
  EXPECT_EQ(kind_of_error(), ErrorKind::kCorrupt);
  std::filesystem::copy(directory_ / "whole", file,
                        std::filesystem::copy_options::overwrite_existing);
  std::fstream(file, std::ios::in | std::ios::out).write("no database", 11);
  EXPECT_EQ(kind_of_error(), ErrorKind::kCorrupt);
}

TEST_F(CatalogTest, HasACopyThatFollowsIt) {
  const std::filesystem::path copy = catalog_copy_path(directory_ / "catalog.db");
  const auto wait_for = [&](const std::string& name) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < deadline) {
      if (std::filesystem::exists(copy)) {
        std::filesystem::copy(copy, directory_ / "look",
                              std::filesystem::copy_options::overwrite_existing);
        if (Catalog(directory_ / "look").state_of_name(name)) return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  };
  {
    create_volume("before");
    const CatalogCopy following(directory_ / "catalog.db");
    EXPECT_TRUE(wait_for("before"));
    create_volume("after");
    EXPECT_TRUE(wait_for("after"));
    create_volume("last");
  }
  std::filesystem::copy(copy, directory_ / "look",
                        std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(Catalog(directory_ / "look").state_of_name("last"));
}

}  // namespace
}  // namespace convoy
