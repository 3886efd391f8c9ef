// A store that somebody or something has damaged: every error names what is damaged, and nothing
// false is restored.
#include <nlohmann/json.hpp>

#include "backup/backup_testing.h"
#include "backup/json_fields.h"
#include "base/bytes.h"

namespace convoy {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class DamageTest : public BackupTest {
 protected:
  static constexpr std::uint32_t kSmall = kMinChunkSize;
  static constexpr std::uint64_t kFar = 576 * kKiB;

  DamageTest() {
    device_.Write(0, noise(1, kSmall * 3));
    device_.Write(kFar, noise(2, kSmall));
    chunk_size_ = kSmall;
    record_ = BackUpAll(device_);
    key_ = json_key(lineage_, LineagePart::kBackups, record_.info.uuid);
    for (const auto& [pack, use] : record_.packs) {
      (pack.kind == PackKind::kData ? data_ : tree_) = pack_key(lineage_, pack);
    }
  }

  Bytes Content(const std::string& key) { return objects_.get(key, kMaxPackSize); }

  void Flip(const std::string& key, std::size_t byte, std::size_t bit = 0) {
    Bytes bytes = Content(key);
    bytes.at(byte) ^= std::byte{1} << bit;
    objects_.put(key, bytes);
  }

  void Truncate(const std::string& key, std::size_t size) {
    Bytes bytes = Content(key);
    bytes.resize(size);
    objects_.put(key, bytes);
  }

  // What restoring says, after a restore that must not succeed with another content.
  Error RestoreError() {
    return error_of([&] {
      const BackupRecord record = read_backup(store_, lineage_, record_.info.uuid);
      EXPECT_TRUE(restored(store_, record) == device_.Content());
    });
  }

  // Puts the backup's JSON with something changed in it, and says what reading it gives.
  Error ReadWith(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json json = nlohmann::json::parse(encode_record(record_));
    json.erase("checksum");
    change(json);
    const std::string text = dump_with_checksum(json);
    objects_.put(key_, as_bytes(text));
    return error_of([&] { read_backup(store_, lineage_, record_.info.uuid); });
  }

  TestDevice device_{640 * kKiB};  // two leaves
  BackupRecord record_;
  std::string key_, data_, tree_;
};

TEST_F(DamageTest, NamesBackupRangeAndPackOfAFlippedBitAnywhereInAChunk) {
  for (std::size_t byte = 0; byte < Content(data_).size(); byte += 61) {
    const Bytes before = Content(data_);
    Flip(data_, byte, byte % 8);
    const Error error = RestoreError();
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << byte;
    EXPECT_THAT(error.message(), AllOf(HasSubstr(record_.info.uuid.to_string()),
                                       HasSubstr(" of the volume"), HasSubstr(data_)));
    objects_.put(data_, before);
  }
}

TEST_F(DamageTest, NamesTheVeryRange) {
  Flip(data_, sizeof(FrameHeader) + 100);
  EXPECT_THAT(RestoreError().message(), HasSubstr("bytes 0 to 4096 of the volume"));
  Flip(data_, sizeof(FrameHeader) + 100);
  Flip(data_, 3 * (kSmall + sizeof(FrameHeader)) + 1000);
  EXPECT_THAT(RestoreError().message(), HasSubstr("bytes 589824 to 593920 of the volume"));
}

TEST_F(DamageTest, SeesEveryFlippedBitOfAPacksEndAndOfTheTree) {
  const std::size_t frames = 4 * (kSmall + sizeof(FrameHeader));
  for (std::size_t byte = frames; byte < Content(data_).size(); ++byte) {
    Flip(data_, byte, byte % 8);
    EXPECT_EQ(RestoreError().kind(), ErrorKind::kCorrupt) << byte;
    Flip(data_, byte, byte % 8);
  }
  for (std::size_t byte = 0; byte < Content(tree_).size(); ++byte) {
    Flip(tree_, byte, byte % 8);
    const Error error = RestoreError();
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << byte;
    EXPECT_THAT(error.message(), HasSubstr(tree_));
    Flip(tree_, byte, byte % 8);
  }
  EXPECT_EQ(RestoreError().message(), "no error was thrown");
}

TEST_F(DamageTest, NamesAPackThatIsCutOffOrMissing) {
  for (const std::string& pack : {data_, tree_}) {
    const Bytes whole = Content(pack);
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{10}, whole.size() / 2, whole.size() - 1}) {
      Truncate(pack, size);
      const Error error = RestoreError();
      EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << size;
      EXPECT_THAT(error.message(), HasSubstr(pack));
    }
    objects_.remove(pack);
    EXPECT_THAT(RestoreError().message(), AllOf(HasSubstr(pack), HasSubstr("missing")));
    objects_.put(pack, whole);
  }
}

TEST_F(DamageTest, RefusesAPackInThePlaceOfAnother) {
  device_.Write(0, noise(77, kSmall * 3));
  const BackupRecord other = BackUpAll(device_);
  objects_.put(data_, Content(pack_key(lineage_, other.packs.begin()->first)));
  device_.Write(0, noise(1, kSmall * 3));
  EXPECT_EQ(RestoreError().kind(), ErrorKind::kCorrupt);
}

TEST_F(DamageTest, SeesEveryFlippedBitOfABackupsJson) {
  for (std::size_t byte = 0; byte < Content(key_).size(); ++byte) {
    Flip(key_, byte, byte % 7);
    const Error error = RestoreError();
    EXPECT_THAT(error.kind(), testing::AnyOf(ErrorKind::kCorrupt, ErrorKind::kUnsupported)) << byte;
    EXPECT_THAT(error.message(), HasSubstr(key_));
    Flip(key_, byte, byte % 7);
  }
}

TEST_F(DamageTest, SeesABackupsJsonCutOffAnywhere) {
  const Bytes whole = Content(key_);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Truncate(key_, size);
    const Error error = RestoreError();
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << size;
    EXPECT_THAT(error.message(), HasSubstr(key_));
    objects_.put(key_, whole);
  }
}

TEST_F(DamageTest, NamesTheFieldOfABackupsJsonThatIsMissing) {
  for (const char* const path : {"version",
                                 "uuid",
                                 "created",
                                 "parent",
                                 "lineage",
                                 "driver",
                                 "volume",
                                 "volume/uuid",
                                 "volume/name",
                                 "volume/created",
                                 "volume/filesystem",
                                 "volume/size",
                                 "snapshot",
                                 "snapshot/uuid",
                                 "snapshot/name",
                                 "snapshot/created",
                                 "chunk_size",
                                 "tree",
                                 "tree/height",
                                 "tree/root",
                                 "tree/root/pack",
                                 "tree/root/slot",
                                 "tree/root/digest",
                                 "packs",
                                 "statistics",
                                 "statistics/bytes_read",
                                 "statistics/chunks_stored",
                                 "statistics/chunks_reused",
                                 "statistics/bytes_stored"}) {
    std::string dotted = path;
    std::ranges::replace(dotted, '/', '.');
    const nlohmann::json::json_pointer pointer("/" + std::string(path));
    const Error missing = ReadWith(
        [&](nlohmann::json& json) { json.at(pointer.parent_pointer()).erase(pointer.back()); });
    EXPECT_EQ(missing.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(missing.message(), AllOf(HasSubstr(key_), HasSubstr(dotted + " is missing")));
    const Error wrong_type =
        ReadWith([&](nlohmann::json& json) { json[pointer] = nlohmann::json::array({1}); });
    EXPECT_EQ(wrong_type.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(wrong_type.message(), HasSubstr(dotted));
  }
  EXPECT_EQ(ReadWith([](nlohmann::json& json) { json["of a later program"] = 1; }).message(),
            "no error was thrown");
}

TEST_F(DamageTest, RefusesValuesThatCantBe) {
  const std::string pack = to_string(record_.packs.begin()->first);
  const std::vector<std::pair<const char*, nlohmann::json>> wrong = {
      {"/volume/size", 0},
      {"/volume/size", 513},
      {"/volume/size", -512},
      {"/volume/size", kMaxVolumeSize + 512},
      {"/volume/size", 1e300},
      {"/volume/size", 30 * kGiB},  // of another height
      {"/volume/name", "../../evil"},
      {"/volume/name", std::string(10000, 'a')},
      {"/volume/created", "yesterday"},
      {"/chunk_size", 0},
      {"/chunk_size", 2048},
      {"/chunk_size", 65537},
      {"/chunk_size", 131072},
      {"/tree/height", 9},
      {"/tree/height", 0},
      {"/tree/root/slot", kMaxPackSlots},
      {"/tree/root/digest", "abc"},
      {"/tree/root/digest", std::string(64, 'G')},
      {"/tree/root/pack", pack},  // of the kind data
      {"/tree/root/pack", "../store.json"},
      {"/packs", {{"../store.json", {1, 1}}}},
      {"/packs", {{pack, {kMaxPackSize + 1, 1}}}},
      {"/packs", {{pack, {0, 1}}}},
      {"/packs", {{pack, {100, 0}}}},
      {"/packs", {{pack, {100}}}},
      {"/uuid", Uuid::generate().to_string()},
      {"/lineage", Uuid::generate().to_string()},
  };
  for (const auto& [path, value] : wrong) {
    const Error error =
        ReadWith([&](nlohmann::json& json) { json[nlohmann::json::json_pointer(path)] = value; });
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << path << " " << value;
    EXPECT_THAT(error.message(), HasSubstr(key_));
  }
  EXPECT_EQ(ReadWith([](nlohmann::json& json) { json["version"] = 2; }).kind(),
            ErrorKind::kUnsupported);
}

TEST_F(DamageTest, ATreeThatLeadsNowhereIsNoCrash) {
  // The JSON is consistent, but names packs with too small a size, or does not list the pack that
  // the tree leads to.
  const std::string data = data_.substr(data_.rfind('/') + 1);
  const auto error_with = [&](const std::function<void(nlohmann::json&)>& change) {
    EXPECT_EQ(ReadWith(change).message(), "no error was thrown");
    return RestoreError();
  };
  const Error unlisted = error_with([&](nlohmann::json& json) { json["packs"].erase(data); });
  EXPECT_EQ(unlisted.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(unlisted.message(), HasSubstr("does not list this pack"));
  for (const std::uint64_t size : {1U, 55U, 56U, 57U, 200U}) {
    const Error error = error_with([&](nlohmann::json& json) { json["packs"][data][0] = size; });
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.message(), HasSubstr(data_));
  }
  const Error shorter = error_with([&](nlohmann::json& json) { json["volume"]["size"] = kFar; });
  EXPECT_THAT(shorter.message(), HasSubstr("beyond the volume's end"));
}

TEST_F(DamageTest, DoesNotHideTheOtherBackups) {
  const BackupRecord second = BackUpAll(device_, record_);
  Truncate(key_, 100);
  const BackupList list = list_backups(store_, std::nullopt);
  ASSERT_EQ(list.backups.size(), 1U);
  EXPECT_EQ(list.backups[0].uuid, second.info.uuid);
  ASSERT_EQ(list.damaged.size(), 1U);
  EXPECT_THAT(list.damaged[0].message(), HasSubstr(key_));
}

TEST_F(DamageTest, StopsDeletionsOfOtherBackupsButNotItsOwn) {
  const BackupRecord second = BackUpAll(device_, record_);
  Truncate(key_, 100);
  const auto before = KeysUnder("");
  const Error error = error_of([&] { delete_backup(store_, lineage_, second.info.uuid); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr(key_));
  EXPECT_EQ(KeysUnder(""), before);

  Delete(record_.info.uuid);
  CheckBackups();
  CheckNothingIsLeftOver();
}

TEST_F(DamageTest, OfTheParentsTreeFailsTheNextBackupOnlyWhereItIsNeeded) {
  Flip(tree_, Content(tree_).size() - 200);  // in the footer
  const Error error = error_of([&] { BackUpAll(device_, record_); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), AllOf(HasSubstr(tree_), HasSubstr(record_.info.uuid.to_string())));
}

TEST_F(DamageTest, OfTheParentsCountsIsNoticed) {
  ReadWith([&](nlohmann::json& json) { json["packs"][data_.substr(data_.rfind('/') + 1)][1] = 1; });
  device_.Write(0, noise(5, 3 * kSmall));
  const Error error = error_of([&] { BackUpAll(device_, record_); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr("fewer references"));
}

}  // namespace
}  // namespace convoy
