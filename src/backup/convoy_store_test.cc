#include "backup/convoy_store.h"

#include <filesystem>
#include <map>

#include "backup/backup_testing.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "objectstore/directory_store.h"

namespace convoy {
namespace {

using testing::HasSubstr;

const std::filesystem::path kFixture =
    std::filesystem::path(__FILE__).parent_path() / "../../tests/fixtures/convoy-0.5.2-store";

// What Convoy itself wrote, in memory so that it can be damaged.
class ConvoyStoreTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kSize = 64 * kMiB;

  ConvoyStoreTest() {
    DirectoryStore directory(kFixture);
    directory.list("convoy-objectstore/", [&](const ObjectInfo& info) {
      objects_.put(info.key, directory.get(info.key, kMaxPackSize));
    });
  }

  Bytes restored(const ConvoyBackup& backup, const DamageSink& damaged = {}) {
    const TestDevice target(backup.info.source.size);
    restore_convoy_backup(objects_, backup, target.fd(), {}, {}, damaged);
    return target.content();
  }

  // The key of a block of the second backup.
  std::string block_key(std::size_t index) {
    const auto block = read_convoy_backup(objects_, kSecond).blocks.at(index);
    return "convoy-objectstore/volumes/db/!!/db!!/blocks/" + block.checksum.substr(0, 2) + "/" +
           block.checksum.substr(2, 2) + "/" + block.checksum + ".blk";
  }

  const ConvoyBackupName kFirst{.volume = "db", .backup = "backup-40a37af6368a44e1"};
  const ConvoyBackupName kSecond{.volume = "db", .backup = "backup-0a05bad14b0e4dd4"};
  MemoryStore objects_;
};

TEST_F(ConvoyStoreTest, IsListed) {
  const ConvoyBackupList list = list_convoy_backups(objects_, std::nullopt);
  EXPECT_TRUE(list.damaged.empty());
  ASSERT_EQ(list.backups.size(), 2U);
  EXPECT_EQ(list.backups[0].name, kFirst);
  EXPECT_EQ(list.backups[1].name, kSecond);
  const BackupInfo& info = list.backups[1].info;
  EXPECT_EQ(format_for_user(info.created), "Mon Nov 23 01:05:34 +0000 2026");
  EXPECT_EQ(info.source.driver, "devicemapper");
  EXPECT_EQ(info.source.size, kSize);
  EXPECT_EQ(info.source.volume.name, "db");
  EXPECT_EQ(format_for_user(info.source.volume.created), "Mon Nov 23 01:05:21 +0000 2026");
  EXPECT_EQ(info.source.snapshot.name, "db-s2");
  EXPECT_EQ(list_convoy_backups(objects_, "db").backups.size(), 2U);
  EXPECT_EQ(list_convoy_backups(objects_, "d").backups.size(), 0U);
}

TEST_F(ConvoyStoreTest, IsRestoredBitForBit) {
  std::map<std::string, std::string> digests;
  std::istringstream lines(read_text_file(kFixture / "snapshot-device.sha256"));
  for (std::string digest, snapshot; lines >> digest >> snapshot;) digests[snapshot] = digest;
  ASSERT_EQ(digests.size(), 2U);
  for (const ConvoyBackupName& name : {kFirst, kSecond}) {
    const ConvoyBackup backup = read_convoy_backup(objects_, name);
    EXPECT_EQ(backup.info.source.volume.filesystem, "ext4");
    EXPECT_EQ(to_hex(sha256(restored(backup))), digests.at(backup.info.source.snapshot.name));
  }
}

TEST_F(ConvoyStoreTest, HasNoBackupOfAnotherName) {
  for (const ConvoyBackupName& name :
       {ConvoyBackupName{.volume = "db", .backup = "backup-0000000000000000"},
        ConvoyBackupName{.volume = "dbx", .backup = kFirst.backup}}) {
    EXPECT_EQ(error_of([&] { read_convoy_backup(objects_, name); }).kind(), ErrorKind::kNotFound);
  }
}

TEST_F(ConvoyStoreTest, TellsOfABlockThatIsDamagedOrMissing) {
  const ConvoyBackup backup = read_convoy_backup(objects_, kSecond);
  const Bytes whole = restored(backup);
  const std::string key = block_key(2);  // which only this backup has
  const Bytes block = objects_.get(key, kMaxPackSize);
  Bytes flipped = block;
  flipped[block.size() / 2] ^= std::byte{1};
  Bytes cut_off(block.begin(), block.end() - 20);
  const Bytes another = objects_.get(block_key(1), kMaxPackSize);
  for (const Bytes& damaged : {flipped, cut_off, another, Bytes(100), Bytes()}) {
    objects_.put(key, damaged);
    if (damaged.empty()) objects_.remove(key);
    const Error error = error_of([&] { restored(backup); });
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.message(), HasSubstr(key));

    DamageList lost;
    Bytes rest = restored(backup, [&](Damage damage) { lost.add(std::move(damage)); });
    const auto damages = lost.take();
    ASSERT_EQ(damages.size(), 1U);
    const ByteRange& range = damages[0].range;
    EXPECT_EQ(range.length(), 2 * kMiB);
    const auto at = static_cast<std::ptrdiff_t>(range.begin);
    std::copy_n(whole.begin() + at, range.length(), rest.begin() + at);
    EXPECT_TRUE(rest == whole);
  }
}

TEST_F(ConvoyStoreTest, TellsOfARecordThatIsDamaged) {
  const std::string key =
      "convoy-objectstore/volumes/db/!!/db!!/backups/backup_" + kFirst.backup + ".cfg";
  const Bytes bytes = objects_.get(key, kMaxStoreJson);
  const std::string whole(as_text(bytes));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& text :
       {std::string(), whole.substr(0, 1000), with("2097152", "2097153"), with("60f", "../"),
        with("2097152", "67108864"), with("\"Mon Nov 23", "\"Tue Nov 23"),
        with("\"Blocks\":[", "\"Blocks\":[1,")}) {
    objects_.put(key, as_bytes(text));
    const Error error = error_of([&] { read_convoy_backup(objects_, kFirst); });
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << text.substr(0, 100);
    EXPECT_THAT(error.message(), HasSubstr(key));
    const ConvoyBackupList list = list_convoy_backups(objects_, std::nullopt);
    EXPECT_EQ(list.backups.size(), 1U);
    EXPECT_EQ(list.damaged.size(), 1U);
  }
}

TEST_F(ConvoyStoreTest, TellsOfAVolumesRecordThatIsMissing) {
  objects_.remove("convoy-objectstore/volumes/db/!!/db!!/volume.cfg");
  const Error error = error_of([&] { read_convoy_backup(objects_, kFirst); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr("volume.cfg: is missing"));
  EXPECT_EQ(list_convoy_backups(objects_, std::nullopt).damaged.size(), 2U);
}

}  // namespace
}  // namespace convoy
