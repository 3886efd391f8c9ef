// What the rest of the product relies on, whatever the objects are kept in.
#include "objectstore/object_store_conformance.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include <gmock/gmock.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/units.h"

namespace convoy {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::byte> random_bytes(std::size_t size) {
  std::minstd_rand generator(static_cast<unsigned>(size) + 1);
  std::vector<std::byte> bytes(size);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(generator() >> 8U); });
  return bytes;
}

ErrorKind kind_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.kind();
  }
  ADD_FAILURE() << "no error was thrown";
  return ErrorKind::kInternal;
}

std::vector<std::string> keys_under(ObjectStore& store, const std::string& prefix) {
  std::vector<std::string> keys;
  store.list(prefix, [&](const ObjectInfo& info) { keys.push_back(info.key); });
  return keys;
}

std::string text_of(ObjectStore& store, const std::string& key) {
  return std::string(as_text(store.get(key, kMiB)));
}

TEST_P(ObjectStoreConformance, GivesBackWhatWasPut) {
  for (const std::size_t size : {0U, 1U, 4095U, 4096U, 100'000U, 5'000'001U}) {
    const auto data = random_bytes(size);
    store_->put("a/object", data);
    EXPECT_EQ(store_->get("a/object", size), data) << size;
    ASSERT_TRUE(store_->head("a/object"));
    EXPECT_EQ(store_->head("a/object")->size, size);
  }
}

TEST_P(ObjectStoreConformance, KeepsEveryKindOfKey) {
  const std::string longest_name(200, 'n');
  for (const std::string& key :
       {std::string("k"), std::string("a.b_c-D9/.hidden/-x"), "x/" + longest_name}) {
    store_->put(key, as_bytes(key));
    EXPECT_EQ(text_of(*store_, key), key);
  }
}

TEST_P(ObjectStoreConformance, RefusesWhatIsNoKey) {
  for (const std::string& key :
       {std::string(), std::string("/"), std::string("/a"), std::string("a/"), std::string("a//b"),
        std::string("."), std::string("../a"), std::string("a/../b"), std::string("a/./b"),
        std::string("a b"), std::string("a~b"), std::string("\xc3\xa4"), std::string("a\0b", 3),
        std::string(201, 'n')}) {
    const auto refused = ErrorKind::kInvalidArgument;
    EXPECT_EQ(kind_of([&] { store_->put(key, {}); }), refused) << key;
    EXPECT_EQ(kind_of([&] { store_->put_if_absent(key, {}); }), refused) << key;
    EXPECT_EQ(kind_of([&] { store_->get(key, 1); }), refused) << key;
    EXPECT_EQ(kind_of([&] { store_->get_range(key, 0, {}); }), refused) << key;
    EXPECT_EQ(kind_of([&] { store_->head(key); }), refused) << key;
    EXPECT_EQ(kind_of([&] { store_->remove(key); }), refused) << key;
  }
  for (const std::string& prefix : {std::string("a"), std::string("../"), std::string("/")}) {
    EXPECT_EQ(kind_of([&] { keys_under(*store_, prefix); }), ErrorKind::kInvalidArgument);
    EXPECT_EQ(kind_of([&] { store_->list_directories(prefix); }), ErrorKind::kInvalidArgument);
  }
}

TEST_P(ObjectStoreConformance, ReplacesAnObjectWhole) {
  store_->put("a/object", as_bytes("a long first text"));
  store_->put("a/object", as_bytes("short"));
  EXPECT_EQ(text_of(*store_, "a/object"), "short");
}

TEST_P(ObjectStoreConformance, ShowsReadersTheOldOrTheNewObjectOnly) {
  const std::vector<std::byte> zeros(300'000, std::byte{0});
  const std::vector<std::byte> ones(300'000, std::byte{1});
  store_->put("a/object", zeros);
  std::atomic<bool> done = false;
  std::jthread writer([&] {
    for (int i = 0; i < 30; ++i) store_->put("a/object", i % 2 == 0 ? ones : zeros);
    done = true;
  });
  while (!done) {
    const auto seen = store_->get("a/object", kMiB);
    ASSERT_TRUE(seen == zeros || seen == ones);
    ASSERT_THAT(keys_under(*store_, ""), ElementsAre("a/object"));
  }
}

TEST_P(ObjectStoreConformance, PutsIfAbsentOnlyOnce) {
  EXPECT_EQ(store_->put_if_absent("a/object", as_bytes("first")), PutOutcome::kStored);
  EXPECT_EQ(store_->put_if_absent("a/object", as_bytes("second")), PutOutcome::kAlreadyThere);
  EXPECT_EQ(text_of(*store_, "a/object"), "first");
  EXPECT_THAT(keys_under(*store_, ""), ElementsAre("a/object"));
}

TEST_P(ObjectStoreConformance, TellsOneOfSeveralAtOnceThatItPut) {
  for (int round = 0; round < 10; ++round) {
    const std::string key = "round" + std::to_string(round) + "/object";
    std::atomic<int> winner = -1;
    std::atomic<int> stored = 0;
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
          if (store_->put_if_absent(key, as_bytes(std::to_string(i))) != PutOutcome::kStored)
            return;
          winner = i;
          ++stored;
        });
      }
    }
    EXPECT_EQ(stored, 1);
    EXPECT_EQ(text_of(*store_, key), std::to_string(winner));
  }
}

TEST_P(ObjectStoreConformance, ReadsRanges) {
  store_->put("a/object", as_bytes("0123456789"));
  std::array<std::byte, 4> out = {};
  EXPECT_EQ(store_->get_range("a/object", 3, out), 4U);
  EXPECT_EQ(as_text(out), "3456");
  EXPECT_EQ(store_->get_range("a/object", 8, out), 2U);
  EXPECT_EQ(as_text(out).substr(0, 2), "89");
  EXPECT_EQ(store_->get_range("a/object", 10, out), 0U);
  EXPECT_EQ(store_->get_range("a/object", 1'000'000, out), 0U);
}

TEST_P(ObjectStoreConformance, RefusesToGetMoreThanTheCallerTakes) {
  store_->put("a/object", as_bytes("0123456789"));
  EXPECT_EQ(kind_of([&] { store_->get("a/object", 9); }), ErrorKind::kCorrupt);
}

TEST_P(ObjectStoreConformance, NamesAnObjectThatIsMissing) {
  store_->put("a/object", as_bytes("x"));
  std::array<std::byte, 4> out = {};
  for (const std::string& key :
       {std::string("a/other"), std::string("b/object"), std::string("a"), std::string("object")}) {
    EXPECT_EQ(kind_of([&] { store_->get(key, 1); }), ErrorKind::kNotFound) << key;
    EXPECT_EQ(kind_of([&] { store_->get_range(key, 0, out); }), ErrorKind::kNotFound) << key;
    EXPECT_FALSE(store_->head(key)) << key;
    try {
      store_->get(key, 1);
    } catch (const Error& error) {
      EXPECT_THAT(error.message(), testing::HasSubstr(key));
    }
  }
}

TEST_P(ObjectStoreConformance, ListsInTheOrderOfKeysWhateverTheDirectories) {
  const std::vector<std::string> keys = {"a-b/x", "a.b", "a/b", "a/c/d", "a/c0", "a0", "b"};
  for (const std::size_t i : {3U, 0U, 6U, 2U, 5U, 1U, 4U}) store_->put(keys[i], as_bytes("x"));
  EXPECT_EQ(keys_under(*store_, ""), keys);
  EXPECT_TRUE(std::ranges::is_sorted(keys));
}

TEST_P(ObjectStoreConformance, ListsADirectoryAndNotThoseWhoseNamesBeginAlike) {
  for (const char* key : {"vol1/a", "vol1/b/c", "vol10/a", "vol"}) store_->put(key, as_bytes("x"));
  EXPECT_THAT(keys_under(*store_, "vol1/"), ElementsAre("vol1/a", "vol1/b/c"));
  EXPECT_THAT(keys_under(*store_, "vol1/b/"), ElementsAre("vol1/b/c"));
  EXPECT_THAT(keys_under(*store_, "vol2/"), IsEmpty());
  EXPECT_THAT(keys_under(*store_, "vol/"), IsEmpty());
}

TEST_P(ObjectStoreConformance, ListsSizesAndTimes) {
  store_->put("a/one", random_bytes(17));
  store_->put("a/two", random_bytes(4711));
  std::vector<ObjectInfo> found;
  store_->list("a/", [&](const ObjectInfo& info) { found.push_back(info); });
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].size, 17U);
  EXPECT_EQ(found[1].size, 4711U);
  for (const ObjectInfo& info : found) {
    EXPECT_EQ(info.modified, store_->head(info.key)->modified);
    EXPECT_LT(abs(info.modified - now()), std::chrono::hours(48));
  }
}

TEST_P(ObjectStoreConformance, ListsMoreObjectsThanOneAnswerHolds) {
  std::vector<std::string> keys;
  for (int i = 0; i < 1100; ++i) keys.push_back("many/" + std::to_string(1000 + i));
  std::ranges::sort(keys);
  for (const std::string& key : keys) store_->put(key, {});
  EXPECT_EQ(keys_under(*store_, "many/"), keys);
}

TEST_P(ObjectStoreConformance, LetsTheVisitorUseTheStore) {
  for (const char* key : {"a/1", "a/2", "a/3"}) store_->put(key, as_bytes("x"));
  store_->list("a/", [&](const ObjectInfo& info) { store_->remove(info.key); });
  EXPECT_THAT(keys_under(*store_, ""), IsEmpty());
}

TEST_P(ObjectStoreConformance, ListsTheDirectoriesRightUnderAPrefix) {
  for (const char* key : {"v/b/x/y", "v/a/x", "v/a.b/x", "v/object", "w/c/x"}) {
    store_->put(key, as_bytes("x"));
  }
  EXPECT_THAT(store_->list_directories("v/"), ElementsAre("a", "a.b", "b"));
  EXPECT_THAT(store_->list_directories(""), ElementsAre("v", "w"));
  EXPECT_THAT(store_->list_directories("nothing/"), IsEmpty());
}

TEST_P(ObjectStoreConformance, GivesALaterPutNoEarlierTime) {
  store_->put("a/object", as_bytes("x"));
  const Timestamp first = store_->head("a/object")->modified;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  store_->put("a/other", as_bytes("x"));
  const Timestamp second = store_->head("a/other")->modified;
  EXPECT_GE(second, first);
  store_->put("a/object",
              as_bytes("x"));  // the same content is a put as well: leases are renewed so
  EXPECT_GE(store_->head("a/object")->modified, second);
}

TEST_P(ObjectStoreConformance, RemovesOneObjectAndNoOther) {
  for (const char* key : {"a/b/c", "a/b/d", "a/e"}) store_->put(key, as_bytes("x"));
  store_->remove("a/b/c");
  EXPECT_THAT(keys_under(*store_, ""), ElementsAre("a/b/d", "a/e"));
  store_->remove("a/b/d");
  EXPECT_THAT(keys_under(*store_, ""), ElementsAre("a/e"));
  store_->put("a/b/c", as_bytes("again"));
  EXPECT_EQ(text_of(*store_, "a/b/c"), "again");
}

TEST_P(ObjectStoreConformance, TakesRemovingWhatIsAbsentForDone) {
  store_->put("a/b", as_bytes("x"));
  store_->remove("a/c");
  store_->remove("nothing/there");
  store_->remove("a");  // a directory at most
  EXPECT_EQ(text_of(*store_, "a/b"), "x");
}

TEST_P(ObjectStoreConformance, RemovesMoreAtOnceThanOneRequestTakes) {
  std::vector<std::string> keys;
  for (int i = 0; i < 1100; ++i) {
    keys.push_back("d" + std::to_string(i / 500) + "/" + std::to_string(i));
    if (i % 2 == 0) store_->put(keys.back(), as_bytes("x"));
  }
  store_->put("d0/stays", as_bytes("x"));
  store_->remove_all(keys);
  EXPECT_THAT(keys_under(*store_, ""), ElementsAre("d0/stays"));
  store_->remove_all({});
}

TEST_P(ObjectStoreConformance, PutsWhileNeighboursRemoveTheLastObjectBesideIt) {
  const auto put_and_remove = [&](const std::string& key) {
    for (int i = 0; i < 200; ++i) {
      store_->put(key, as_bytes("x"));
      EXPECT_TRUE(store_->head(key));
      store_->remove(key);
      EXPECT_FALSE(store_->head(key));
    }
  };
  std::vector<std::jthread> neighbours;
  for (const char* const key : {"a/b/1", "a/b/2", "a/3", "a/b/c/4"}) {
    neighbours.emplace_back([&, key] { EXPECT_NO_THROW(put_and_remove(key)); });
  }
}

}  // namespace
}  // namespace convoy
