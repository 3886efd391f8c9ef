// Objects as files under a directory: a local disk or an NFS mount.
//
// An object is written under a temporary name beside its place, synced, and renamed. Temporary
// names hold a '~', which no key has, so what a dead writer left is never listed. Symbolic links
// under the root are not followed: whatever the directory's content is, nothing outside of it is
// read or changed.
#pragma once

#include <filesystem>

#include "objectstore/object_store.h"
#include "sys/unique_fd.h"

namespace convoy {

class DirectoryStore : public ObjectStore {
 public:
  // Throws kNotFound if `root` does not exist, kInvalidArgument if it is no directory. Keeps it
  // open: while the store lives, the file system can't be unmounted, so that no object lands in the
  // empty mount point.
  explicit DirectoryStore(const std::filesystem::path& root);

  void put(const std::string& key, std::span<const std::byte> data) override;
  PutOutcome put_if_absent(const std::string& key, std::span<const std::byte> data) override;
  std::vector<std::byte> get(const std::string& key, std::uint64_t max_size) override;
  std::size_t get_range(const std::string& key, std::uint64_t offset,
                        std::span<std::byte> out) override;
  std::optional<ObjectInfo> head(const std::string& key) override;

  // Also removes temporary files in the directories it goes through, if another file there is a day
  // younger: that long no writer takes.
  void list(const std::string& prefix,
            const std::function<void(const ObjectInfo&)>& visit) override;
  std::vector<std::string> list_directories(const std::string& prefix) override;

  // Also removes the directories that this made empty.
  void remove(const std::string& key) override;
  void remove_all(std::span<const std::string> keys) override;

 private:
  std::string path_of(const std::string& key) const;
  void read_object(const std::string& key,
                   const std::function<void(int file, std::uint64_t size)>& read) const;
  UniqueFd open_object(const std::string& key) const;
  void remove_in(const std::string& directory, std::span<const std::string> keys);

  std::filesystem::path root_;
  UniqueFd root_fd_;
};

}  // namespace convoy
