// A store that somebody or something has damaged: every error names what is damaged, and nothing
// false is restored.
#include <nlohmann/json.hpp>

#include "backup/backup_testing.h"
#include "backup/json_fields.h"
#include "backup/zstd_text.h"
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
    device_.write(0, noise(1, kSmall * 3));
    device_.write(kFar, noise(2, kSmall));
    chunk_size_ = kSmall;
    record_ = back_up_all(device_);
    key_ = backup_key(lineage_, record_.info.uuid);
    for (const auto& [pack, use] : record_.packs) {
      (pack.kind == PackKind::kData ? data_ : tree_) = pack_key(lineage_, pack);
    }
  }

  Bytes content(const std::string& key) { return objects_.get(key, kMaxPackSize); }

  void flip(const std::string& key, std::size_t byte, std::size_t bit = 0) {
    Bytes bytes = content(key);
    bytes.at(byte) ^= std::byte{1} << bit;
    objects_.put(key, bytes);
  }

  void cut_off(const std::string& key, std::size_t size) {
    Bytes bytes = content(key);
    bytes.resize(size);
    objects_.put(key, bytes);
  }

  // What restoring says, after a restore that must not succeed with another content.
  Error restore_error() {
    return error_of([&] {
      const BackupRecord record = read_backup(store_, lineage_, record_.info.uuid);
      EXPECT_TRUE(restored(store_, record) == device_.content());
    });
  }

  // Puts the backup's JSON with something changed in it, and says what reading it gives.
  Error read_with(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json json = nlohmann::json::parse(encode_record(record_));
    json.erase("checksum");
    change(json);
    const std::string text = dump_with_checksum(json);
    objects_.put(key_, compress_text(text));
    return error_of([&] { read_backup(store_, lineage_, record_.info.uuid); });
  }

  TestDevice device_{640 * kKiB};  // two leaves
  BackupRecord record_;
  std::string key_, data_, tree_;
};

TEST_F(DamageTest, NamesBackupRangeAndPackOfAFlippedBitAnywhereInAChunk) {
  for (std::size_t byte = 0; byte < content(data_).size(); byte += 61) {
    const Bytes before = content(data_);
    flip(data_, byte, byte % 8);
    const Error error = restore_error();
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << byte;
    EXPECT_THAT(error.message(), AllOf(HasSubstr(record_.info.uuid.to_string()),
                                       HasSubstr(" of the volume"), HasSubstr(data_)));
    objects_.put(data_, before);
  }
}

TEST_F(DamageTest, NamesTheVeryRange) {
  flip(data_, sizeof(FrameHeader) + 100);
  EXPECT_THAT(restore_error().message(), HasSubstr("bytes 0 to 4096 of the volume"));
  flip(data_, sizeof(FrameHeader) + 100);
  flip(data_, 3 * (kSmall + sizeof(FrameHeader)) + 1000);
  EXPECT_THAT(restore_error().message(), HasSubstr("bytes 589824 to 593920 of the volume"));
}

TEST_F(DamageTest, SeesEveryFlippedBitOfAPacksEndAndOfTheTree) {
  const std::size_t frames = 4 * (kSmall + sizeof(FrameHeader));
  for (std::size_t byte = frames; byte < content(data_).size(); ++byte) {
    flip(data_, byte, byte % 8);
    EXPECT_EQ(restore_error().kind(), ErrorKind::kCorrupt) << byte;
    flip(data_, byte, byte % 8);
  }
  for (std::size_t byte = 0; byte < content(tree_).size(); ++byte) {
    flip(tree_, byte, byte % 8);
    const Error error = restore_error();
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << byte;
    EXPECT_THAT(error.message(), HasSubstr(tree_));
    flip(tree_, byte, byte % 8);
  }
  EXPECT_EQ(restore_error().message(), "no error was thrown");
}

TEST_F(DamageTest, NamesAPackThatIsCutOffOrMissing) {
  for (const std::string& pack : {data_, tree_}) {
    const Bytes whole = content(pack);
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{10}, whole.size() / 2, whole.size() - 1}) {
      cut_off(pack, size);
      const Error error = restore_error();
      EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << size;
      EXPECT_THAT(error.message(), HasSubstr(pack));
    }
    objects_.remove(pack);
    EXPECT_THAT(restore_error().message(), AllOf(HasSubstr(pack), HasSubstr("missing")));
    objects_.put(pack, whole);
  }
}

TEST_F(DamageTest, RefusesAPackInThePlaceOfAnother) {
  device_.write(0, noise(77, kSmall * 3));
  const BackupRecord other = back_up_all(device_);
  objects_.put(data_, content(pack_key(lineage_, other.packs.begin()->first)));
  device_.write(0, noise(1, kSmall * 3));
  const Error error = restore_error();
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr("is that of something else"));
}

TEST_F(DamageTest, SeesEveryFlippedBitOfABackupsJson) {
  const std::string text = encode_record(record_);
  for (std::size_t byte = 0; byte < text.size(); ++byte) {
    std::string flipped = text;
    flipped[byte] = static_cast<char>(flipped[byte] ^ (1 << (byte % 7)));
    objects_.put(key_, compress_text(flipped));
    const Error error = restore_error();
    EXPECT_THAT(error.kind(), testing::AnyOf(ErrorKind::kCorrupt, ErrorKind::kUnsupported)) << byte;
    EXPECT_THAT(error.message(), HasSubstr(key_));
  }
}

// zstd does not use every bit of its header.
TEST_F(DamageTest, IsNeverMisledByAFlippedBitOfTheCompressedJson) {
  for (std::size_t byte = 0; byte < content(key_).size(); ++byte) {
    for (std::size_t bit = 0; bit < 8; ++bit) {
      flip(key_, byte, bit);
      std::string read;
      const Error error =
          error_of([&] { read = encode_record(read_backup(store_, lineage_, record_.info.uuid)); });
      if (!read.empty()) {
        EXPECT_EQ(read, encode_record(record_)) << byte;
      } else {
        EXPECT_THAT(error.kind(), testing::AnyOf(ErrorKind::kCorrupt, ErrorKind::kUnsupported))
            << byte;
        EXPECT_THAT(error.message(), HasSubstr(key_));
      }
      flip(key_, byte, bit);
    }
  }
}

TEST_F(DamageTest, SeesABackupsJsonCutOffAnywhere) {
  const Bytes whole = content(key_);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    cut_off(key_, size);
    const Error error = restore_error();
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
    const Error missing = read_with(
        [&](nlohmann::json& json) { json.at(pointer.parent_pointer()).erase(pointer.back()); });
    EXPECT_EQ(missing.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(missing.message(), AllOf(HasSubstr(key_), HasSubstr(dotted + " is missing")));
    const Error wrong_type =
        read_with([&](nlohmann::json& json) { json[pointer] = nlohmann::json::array({1}); });
    EXPECT_EQ(wrong_type.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(wrong_type.message(), HasSubstr(dotted));
  }
  EXPECT_EQ(read_with([](nlohmann::json& json) { json["of a later program"] = 1; }).message(),
            "no error was thrown");
}

TEST_F(DamageTest, RefusesValuesThatCantBe) {
  const std::string pack = to_string(record_.packs.begin()->first);
  const std::string data = "/packs/" + record_.info.uuid.to_string() + "/data";
  const std::vector<std::pair<std::string, nlohmann::json>> wrong = {
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
      {"/packs", {{"../store.json", nlohmann::json::object()}}},
      {data, {{"numbers", {{0, 0}}}}},
      {data + "/sizes", {kMaxPackSize + 1}},
      {data + "/sizes", {0}},
      {data + "/sizes", {100, 100}},
      {data + "/references", {0}},
      {data + "/references", {1, 1}},
      {data + "/references", nlohmann::json::array()},
      {data + "/numbers", {0}},
      {data + "/numbers", {{0, 1}}},
      {data + "/numbers", {{1, 0}}},
      {data + "/numbers", {{0, 0}, {0, 0}}},
      {data + "/numbers", {{0, UINT64_MAX}}},
      {data + "/numbers", {{1ULL << 32U, 1ULL << 32U}}},
      {data + "/numbers", {{-1, 0}}},
      {"/uuid", Uuid::generate().to_string()},
      {"/lineage", Uuid::generate().to_string()},
  };
  for (const auto& [path, value] : wrong) {
    const Error error =
        read_with([&](nlohmann::json& json) { json[nlohmann::json::json_pointer(path)] = value; });
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << path << " " << value;
    EXPECT_THAT(error.message(), HasSubstr(key_));
  }
  EXPECT_EQ(read_with([](nlohmann::json& json) { json["version"] = 2; }).kind(),
            ErrorKind::kUnsupported);
}

TEST_F(DamageTest, AJsonThatWouldFillTheMemoryIsRefused) {
  const auto read_text = [&](const std::string& text) {
    objects_.put(key_, compress_text(text));
    return error_of([&] { read_backup(store_, lineage_, record_.info.uuid); }).message();
  };
  std::string fields = "{";
  for (unsigned i = 0; i < 1'100'000; ++i) fields += fmt::format("\"{}\":0,", i);
  std::string values = "{\"a\":[";
  for (unsigned i = 0; i < 10'100'000; ++i) values += "1,";
  std::string nested = "{\"a\":";
  nested += std::string(20'000'000, '[');
  for (const std::string& text : {fields, values, nested})
    EXPECT_THAT(read_text(text), HasSubstr("holds more than a JSON object of a store can"));
  EXPECT_THAT(read_text(std::string(kMaxStoreJson + 1, ' ')), HasSubstr("claims to hold too much"));
}

TEST_F(DamageTest, ATreeThatLeadsNowhereIsNoCrash) {
  // The JSON is consistent, but names packs with too small a size, or does not list the pack that
  // the tree leads to.
  const std::string backup = record_.info.uuid.to_string();
  const auto error_with = [&](const std::function<void(nlohmann::json&)>& change) {
    EXPECT_EQ(read_with(change).message(), "no error was thrown");
    return restore_error();
  };
  const Error unlisted =
      error_with([&](nlohmann::json& json) { json["packs"][backup].erase("data"); });
  EXPECT_EQ(unlisted.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(unlisted.message(), HasSubstr("does not list this pack"));
  for (const std::uint64_t size : {1U, 55U, 56U, 57U, 200U}) {
    const Error error =
        error_with([&](nlohmann::json& json) { json["packs"][backup]["data"]["sizes"][0] = size; });
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.message(), HasSubstr(data_));
  }
  const Error shorter = error_with([&](nlohmann::json& json) { json["volume"]["size"] = kFar; });
  EXPECT_THAT(shorter.message(), HasSubstr("beyond the volume's end"));
}

TEST_F(DamageTest, DoesNotHideTheOtherBackups) {
  const BackupRecord second = back_up_all(device_, record_);
  cut_off(key_, 100);
  const BackupList list = list_backups(store_, std::nullopt);
  ASSERT_EQ(list.backups.size(), 1U);
  EXPECT_EQ(list.backups[0].uuid, second.info.uuid);
  ASSERT_EQ(list.damaged.size(), 1U);
  EXPECT_THAT(list.damaged[0].message(), HasSubstr(key_));
}

TEST_F(DamageTest, StopsDeletionsOfOtherBackupsButNotItsOwn) {
  const BackupRecord second = back_up_all(device_, record_);
  cut_off(key_, 100);
  const auto before = keys_under("");
  const Error error = error_of([&] { delete_backup(store_, lineage_, second.info.uuid); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr(key_));
  EXPECT_EQ(keys_under(""), before);

  delete_and_forget(record_.info.uuid);
  check_backups();
  check_nothing_is_left_over();
}

TEST_F(DamageTest, OfTheParentsTreeFailsTheNextBackupOnlyWhereItIsNeeded) {
  flip(tree_, content(tree_).size() - 200);  // in the footer
  const Error error = error_of([&] { back_up_all(device_, record_); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), AllOf(HasSubstr(tree_), HasSubstr(record_.info.uuid.to_string())));
}

TEST_F(DamageTest, OfTheParentsCountsIsNoticed) {
  read_with([&](nlohmann::json& json) {
    json["packs"][record_.info.uuid.to_string()]["data"]["references"][0] = 1;
  });
  device_.write(0, noise(5, 3 * kSmall));
  const Error error = error_of([&] { back_up_all(device_, record_); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr("fewer references"));
}

}  // namespace
}  // namespace convoy
