// What is true of directories beyond what every object store must do.
#include "objectstore/directory_store.h"

#include <fstream>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/units.h"
#include "base/uuid.h"
#include "objectstore/object_store_conformance.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct TemporaryDirectory {
  const fs::path path = fs::path(testing::TempDir()) / ("directory_store-" + random_hex(16));

  TemporaryDirectory() { fs::create_directory(path); }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

std::shared_ptr<ObjectStore> make_store_in_a_new_directory() {
  struct Kept {
    TemporaryDirectory directory;
    DirectoryStore store{directory.path};
  };
  const auto kept = std::make_shared<Kept>();
  return {kept, &kept->store};
}

INSTANTIATE_TEST_SUITE_P(Directory, ObjectStoreConformance,
                         testing::Values(&make_store_in_a_new_directory));

class DirectoryStoreTest : public testing::Test {
 protected:
  void write_file(const fs::path& path, std::string_view text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

  void set_age(const fs::path& path, std::chrono::hours age) {
    fs::last_write_time(path, fs::file_time_type::clock::now() - age);
  }

  std::vector<std::string> keys() {
    std::vector<std::string> keys;
    store_.list("", [&](const ObjectInfo& info) { keys.push_back(info.key); });
    return keys;
  }

  TemporaryDirectory directory_;
  const fs::path root_ = directory_.path;
  DirectoryStore store_{root_};
};

TEST_F(DirectoryStoreTest, WantsADirectoryThatExists) {
  try {
    DirectoryStore store(root_ / "missing");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_THAT(error.message(), HasSubstr("missing does not exist"));
  }
  write_file(root_ / "file", "x");
  EXPECT_THROW(DirectoryStore(root_ / "file"), Error);
}

TEST_F(DirectoryStoreTest, KeepsAnObjectAsAFileOfItsName) {
  store_.put("a/b/object", as_bytes("text"));
  std::string text;
  std::ifstream(root_ / "a/b/object") >> text;
  EXPECT_EQ(text, "text");
  EXPECT_EQ(std::distance(fs::directory_iterator(root_ / "a/b"), {}), 1)
      << "a temporary file is left";
}

TEST_F(DirectoryStoreTest, ListsNeitherTemporaryFilesNorWhatElseLiesAround) {
  store_.put("a/object", as_bytes("x"));
  write_file(root_ / "a/~0123456789abcdef", "half an object");
  write_file(root_ / "a/b~", "an editor's backup");
  write_file(root_ / "a/.nfs000000000004d2f100000001", "what NFS keeps of a removed file");
  write_file(root_ / "lost+found/x", "x");
  fs::create_directory(root_ / "empty");
  ASSERT_EQ(::mkfifo((root_ / "a/pipe").c_str(), 0600), 0);
  EXPECT_THAT(keys(), ElementsAre("a/object"));
  std::array<std::byte, 1> out = {};
  EXPECT_THROW(store_.get_range("a/pipe", 0, out), Error);
}

TEST_F(DirectoryStoreTest, SweepsATemporaryFileThatIsADayOlderThanItsNeighbours) {
  store_.put("a/object", as_bytes("x"));
  write_file(root_ / "a/~old", "x");
  write_file(root_ / "a/~young", "x");
  set_age(root_ / "a/~old", std::chrono::hours(25));
  set_age(root_ / "a/~young", std::chrono::hours(23));
  keys();
  EXPECT_FALSE(fs::exists(root_ / "a/~old"));
  EXPECT_TRUE(fs::exists(root_ / "a/~young"));
}

TEST_F(DirectoryStoreTest, RemovesDirectoriesWithTheirLastObject) {
  store_.put("a/b/c/object", as_bytes("x"));
  store_.put("a/other", as_bytes("x"));
  store_.remove("a/b/c/object");
  EXPECT_FALSE(fs::exists(root_ / "a/b"));
  store_.remove("a/other");
  EXPECT_THAT(fs::directory_iterator(root_),
              testing::Truly([](const auto& found) { return found == fs::directory_iterator(); }));
  EXPECT_TRUE(fs::exists(root_));
}

TEST_F(DirectoryStoreTest, FollowsNoSymbolicLinkOutOfTheRoot) {
  const TemporaryDirectory outside;
  write_file(outside.path / "secret", "x");
  fs::create_directory_symlink(outside.path, root_ / "link");
  fs::create_symlink(outside.path / "secret", root_ / "file");

  EXPECT_THROW(store_.get("link/secret", 10), Error);
  EXPECT_THROW(store_.get("file", 10), Error);
  EXPECT_THROW(store_.put("link/new", as_bytes("x")), Error);
  EXPECT_THROW(store_.remove("link/secret"), Error);
  EXPECT_FALSE(store_.head("file"));
  EXPECT_THAT(keys(), IsEmpty());

  store_.put("file", as_bytes("an object now"));  // takes the link's place
  std::string text;
  std::ifstream(outside.path / "secret") >> text;
  EXPECT_EQ(text, "x");
  EXPECT_FALSE(fs::exists(outside.path / "new"));
}

// On a file system of 64 KiB, mounted where nobody else sees it.
TEST_F(DirectoryStoreTest, SaysNoSpaceAndKeepsTheOldObject) {
  bool mounted = false;
  std::thread([&] {
    mounted = ::unshare(CLONE_FS | CLONE_NEWNS) == 0 &&
              ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
              ::mount("none", root_.c_str(), "tmpfs", 0, "size=64k") == 0;
    if (!mounted) return;
    DirectoryStore store(root_);
    store.put("a/object", as_bytes("old"));
    const std::vector<std::byte> large(256 * kKiB, std::byte{1});
    try {
      store.put("a/object", large);
      ADD_FAILURE() << "it fitted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kNoSpace);
      EXPECT_THAT(error.message(), HasSubstr("a/object"));
    }
    EXPECT_EQ(as_text(store.get("a/object", 10)), "old");
    const std::vector<std::byte> small(32 * kKiB, std::byte{1});
    store.put("a/small", small);  // the failed one's space is free again
  }).join();
  if (!mounted) GTEST_SKIP() << "mounting is not permitted here";
}

}  // namespace
}  // namespace convoy
