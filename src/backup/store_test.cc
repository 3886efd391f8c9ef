// store.json, and what is remembered of it.
#include "backup/store.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "backup/backup_testing.h"
#include "base/bytes.h"

namespace convoy {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class StoreTest : public testing::Test {
 protected:
  Error open_error(const std::optional<Uuid>& expected = std::nullopt) {
    const Error error = error_of([&] { Store::open(objects_); });
    const Error other = error_of([&] { Store::open_or_create(objects_, expected); });
    EXPECT_EQ(error.kind(), other.kind());
    return other;
  }

  void put_store_json(const nlohmann::json& json) {
    const std::string text = json.dump();
    objects_.put(kStoreKey, as_bytes(text));
  }

  MemoryStore objects_;
  nlohmann::json json_ = {{"version", 1},
                          {"uuid", Uuid::generate().to_string()},
                          {"digest", "sha256"},
                          {"encryption", "none"},
                          {"created", "2026-11-23T00:13:37.000Z"}};
};

TEST_F(StoreTest, IsMadeOnce) {
  EXPECT_EQ(error_of([&] { Store::open(objects_); }).kind(), ErrorKind::kNotFound);
  const Store made = Store::open_or_create(objects_, std::nullopt);
  EXPECT_EQ(Store::open_or_create(objects_, std::nullopt).uuid(), made.uuid());
  EXPECT_EQ(Store::open_or_create(objects_, made.uuid()).uuid(), made.uuid());
  EXPECT_EQ(Store::open(objects_).uuid(), made.uuid());
}

TEST_F(StoreTest, IsThatOfWhoeverWasFirst) {
  std::optional<Uuid> first;
  objects_.hook = [&](MemoryStore::Call call, const std::string&) {
    if (call == MemoryStore::Call::kPutIfAbsent) {
      first = Store::open_or_create(objects_, std::nullopt).uuid();
    }
  };
  EXPECT_EQ(Store::open_or_create(objects_, std::nullopt).uuid(), first);
}

TEST_F(StoreTest, IsNotMadeAnewWhereOneIsRemembered) {
  const Uuid remembered = Uuid::generate();
  const Error empty = error_of([&] { Store::open_or_create(objects_, remembered); });
  EXPECT_EQ(empty.kind(), ErrorKind::kUnavailable);
  EXPECT_THAT(empty.message(),
              AllOf(HasSubstr(remembered.to_string()), HasSubstr("is now empty: is it mounted?")));
  EXPECT_TRUE(objects_.objects().empty());

  const Store other = Store::open_or_create(objects_, std::nullopt);
  const Error another = error_of([&] { Store::open_or_create(objects_, remembered); });
  EXPECT_EQ(another.kind(), ErrorKind::kUnavailable);
  EXPECT_THAT(another.message(),
              AllOf(HasSubstr(remembered.to_string()), HasSubstr(other.uuid().to_string())));
}

TEST_F(StoreTest, OfAnotherKindIsRefusedWithASentence) {
  put_store_json(json_);
  Store::open(objects_);
  for (const auto& [field, value] : std::map<std::string, nlohmann::json>{
           {"version", 2}, {"digest", "blake3"}, {"encryption", "aes-256-gcm"}}) {
    nlohmann::json json = json_;
    json[field] = value;
    put_store_json(json);
    const Error error = open_error();
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(error.message(), AllOf(HasSubstr(kStoreKey), HasSubstr(field), HasSubstr("only")));
  }
}

TEST_F(StoreTest, ThatIsDamagedIsNamed) {
  for (const char* const field : {"version", "uuid", "digest", "encryption"}) {
    nlohmann::json json = json_;
    json.erase(field);
    put_store_json(json);
    const Error error = open_error();
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.message(), AllOf(HasSubstr(kStoreKey), HasSubstr(field)));
  }
  for (const char* const text : {"", "{", "[]", "null", "\xff\xfe", "[[[[[[[[[["}) {
    objects_.put(kStoreKey, as_bytes(text));
    EXPECT_EQ(open_error().kind(), ErrorKind::kCorrupt) << text;
  }
  const std::string deep(100'000, '[');
  objects_.put(kStoreKey, as_bytes(deep));
  EXPECT_EQ(open_error().kind(), ErrorKind::kCorrupt);
}

TEST_F(StoreTest, IsNotMadeAnewOverBackupsThatLostTheirs) {
  objects_.put(volume_key(Uuid::generate()), {});
  const Error error = open_error();
  EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
  EXPECT_THAT(error.message(), HasSubstr("store.json is lost"));
}

}  // namespace
}  // namespace convoy
