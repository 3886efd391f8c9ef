#include "objectstore/directory_store.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "base/uuid.h"
#include "objectstore/directory_walk.h"
#include "sys/file.h"

namespace convoy {
namespace {

// A writer that needs a day between creating a file and renaming it has died.
constexpr std::chrono::hours kStaleTemporary{24};

// A file in the making. Unless it was renamed it is removed with this object.
class TemporaryFile {
 public:
  // In the directory, which is made if it is missing.
  TemporaryFile(int root, std::string_view directory)
      : name_(fmt::format("{}{}", kTemporaryMark, random_hex(16))) {
    do {  // another's remove may take the directory away, as long as nothing is in it
      directory_ = make_directory(root, directory);
      fd_ = UniqueFd(::openat(directory_.get(), name_.c_str(),
                              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    } while (!fd_ && errno == ENOENT);
    if (!fd_) throw_stale_or("can't create a file");
  }
  ~TemporaryFile() {
    fd_.reset();  // first: NFS keeps what is removed while it is open, and its space
    if (!name_.empty()) ::unlinkat(directory_.get(), name_.c_str(), 0);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(std::span<const std::byte> data) {
    write_all(fd_.get(), data);
    if (::fsync(fd_.get()) != 0) throw system_error(errno, "can't sync the file");
    crash_point("object written");
  }

  void rename_to(const std::string& name) {
    if (::renameat(directory_.get(), name_.c_str(), directory_.get(), name.c_str()) != 0) {
      throw system_error(errno, "can't rename the file to its place");
    }
    name_.clear();
    sync_directory();
  }

  // Never replaces. On NFS, which has no such rename, by link(2): then the object's time is that of
  // the moment at which its temporary name goes, right after that.
  PutOutcome rename_if_absent(const std::string& name) {
    if (::renameat2(directory_.get(), name_.c_str(), directory_.get(), name.c_str(),
                    RENAME_NOREPLACE) == 0) {
      name_.clear();
      sync_directory();
      return PutOutcome::kStored;
    }
    if (errno == EEXIST) return PutOutcome::kAlreadyThere;
    if (errno != EINVAL && errno != ENOSYS)
      throw system_error(errno, "can't rename the file to its place");
    if (::linkat(directory_.get(), name_.c_str(), directory_.get(), name.c_str(), 0) != 0) {
      if (errno == EEXIST) return PutOutcome::kAlreadyThere;
      throw system_error(errno, "can't link the file to its place");
    }
    sync_directory();
    return PutOutcome::kStored;
  }

 private:
  void sync_directory() {
    crash_point("object in place");
    if (::fsync(directory_.get()) != 0) throw system_error(errno, "can't sync the directory");
  }

  std::string name_;
  UniqueFd directory_;
  UniqueFd fd_;
};

// What `action` returns, which is done again when something was stale. Somebody removes or replaces
// what it works on just then; more than a few times in a row is something else.
template <typename Action>
auto retry_stale(Action&& action) {
  constexpr int kAttempts = 20;
  for (int attempt = 1;; ++attempt) {
    try {
      return action();
    } catch (const Stale&) {
      if (attempt == kAttempts) throw system_error(ESTALE, "can't use it");
    }
  }
}

// Reads what there is, and returns how much.
std::size_t read_at(int file, std::uint64_t offset, std::span<std::byte> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count =
        ::pread(file, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_stale_or("can't read");
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

void remove_stale(int directory, const DirectoryContent& content) {
  Timestamp newest;
  for (const DirectoryEntry& entry : content.entries) newest = std::max(newest, entry.modified);
  for (const DirectoryEntry& entry : content.temporary) {
    if (newest - entry.written >= kStaleTemporary) {
      ::unlinkat(directory, entry.name.c_str(), 0);  // may fail where this host only reads
    }
  }
}

std::string_view without_slash(std::string_view prefix) {
  return prefix.substr(0, prefix.empty() ? 0 : prefix.size() - 1);
}

void list_directory(int root, const std::string& prefix,
                    const std::function<void(const ObjectInfo&)>& visit) {
  const DirectoryContent content = with_context(prefix, [&] {
    return retry_stale([&] {
      const UniqueFd directory = open_directory(root, without_slash(prefix));
      if (!directory) return DirectoryContent();
      DirectoryContent found = read_directory(directory.get());
      remove_stale(directory.get(), found);
      return found;
    });
  });
  for (const DirectoryEntry& entry : content.entries) {
    const std::string key = prefix + entry.name;
    if (entry.type == DirectoryEntry::Type::kDirectory)
      list_directory(root, key + '/', visit);
    else
      visit({.key = key, .size = entry.size, .modified = entry.modified});
  }
}

}  // namespace

DirectoryStore::DirectoryStore(const std::filesystem::path& root)
    : root_(root), root_fd_(open_file(root, O_RDONLY)) {
  struct stat info = {};
  if (::fstat(root_fd_.get(), &info) != 0) throw system_error(errno, root.native());
  if (!S_ISDIR(info.st_mode)) {
    throw Error(ErrorKind::kInvalidArgument, "{} is not a directory", root.native());
  }
}

void DirectoryStore::put(const std::string& key, std::span<const std::byte> data) {
  check_key(key);
  const SplitKey split = split_key(key);
  with_context(path_of(key), [&] {
    retry_stale([&] {
      TemporaryFile file(root_fd_.get(), split.directory);
      file.write(data);
      file.rename_to(std::string(split.name));
    });
  });
}

PutOutcome DirectoryStore::put_if_absent(const std::string& key, std::span<const std::byte> data) {
  check_key(key);
  const SplitKey split = split_key(key);
  return with_context(path_of(key), [&] {
    return retry_stale([&] {
      TemporaryFile file(root_fd_.get(), split.directory);
      file.write(data);
      return file.rename_if_absent(std::string(split.name));
    });
  });
}

std::vector<std::byte> DirectoryStore::get(const std::string& key, std::uint64_t max_size) {
  std::vector<std::byte> data;
  read_object(key, [&](int file, std::uint64_t size) {
    if (size > max_size) {
      throw Error(ErrorKind::kCorrupt, "is {} bytes long, where {} are the most", size, max_size);
    }
    data.resize(size);
    if (read_at(file, 0, data) < size)
      throw Error(ErrorKind::kIo, "it became shorter while it was read");
  });
  return data;
}

std::size_t DirectoryStore::get_range(const std::string& key, std::uint64_t offset,
                                      std::span<std::byte> out) {
  std::size_t count = 0;
  read_object(key, [&](int file, std::uint64_t) { count = read_at(file, offset, out); });
  return count;
}

std::optional<ObjectInfo> DirectoryStore::head(const std::string& key) {
  check_key(key);
  const SplitKey split = split_key(key);
  return with_context(path_of(key), [&] {
    return retry_stale([&]() -> std::optional<ObjectInfo> {
      const UniqueFd directory = open_directory(root_fd_.get(), split.directory);
      if (!directory) return std::nullopt;
      const auto entry = examine_entry(directory.get(), std::string(split.name));
      if (!entry || entry->type != DirectoryEntry::Type::kFile) return std::nullopt;
      return ObjectInfo{.key = key, .size = entry->size, .modified = entry->modified};
    });
  });
}

void DirectoryStore::list(const std::string& prefix,
                          const std::function<void(const ObjectInfo&)>& visit) {
  check_prefix(prefix);
  list_directory(root_fd_.get(), prefix, visit);
}

std::vector<std::string> DirectoryStore::list_directories(const std::string& prefix) {
  check_prefix(prefix);
  std::vector<std::string> names;
  DirectoryContent content = with_context(prefix, [&] {
    return retry_stale([&] {
      const UniqueFd directory = open_directory(root_fd_.get(), without_slash(prefix));
      return directory ? read_directory(directory.get()) : DirectoryContent();
    });
  });
  for (DirectoryEntry& entry : content.entries) {
    if (entry.type == DirectoryEntry::Type::kDirectory) names.push_back(std::move(entry.name));
  }
  std::ranges::sort(names);
  return names;
}

void DirectoryStore::remove(const std::string& key) {
  remove_all(std::span(&key, 1));
}

// Those of one directory, which mostly stand together, are made durable at once.
void DirectoryStore::remove_all(std::span<const std::string> keys) {
  while (!keys.empty()) {
    check_key(keys.front());
    const std::string_view directory = split_key(keys.front()).directory;
    const auto end = std::ranges::find_if(
        keys, [&](const std::string& key) { return split_key(key).directory != directory; });
    const auto count = static_cast<std::size_t>(end - keys.begin());
    remove_in(std::string(directory), keys.first(count));
    keys = keys.subspan(count);
  }
}

void DirectoryStore::remove_in(const std::string& directory, std::span<const std::string> keys) {
  with_context(path_of(directory), [&] {
    retry_stale([&] {
      const UniqueFd fd = open_directory(root_fd_.get(), directory);
      if (!fd) return;
      for (const std::string& key : keys) {
        check_key(key);
        const std::string name(split_key(key).name);
        if (::unlinkat(fd.get(), name.c_str(), 0) != 0 && errno != ENOENT && errno != EISDIR)
          throw_stale_or("can't remove " + name);
        crash_point("object removed");
      }
      if (::fsync(fd.get()) != 0) throw_stale_or("can't sync the directory");
      remove_empty_directories(root_fd_.get(), directory);
    });
  });
}

std::string DirectoryStore::path_of(const std::string& key) const {
  return (root_ / key).native();
}

// Calls `read` with the object's file and its size. It may have been replaced or removed since it
// was opened; then there is another one, for which it is called again, or none.
void DirectoryStore::read_object(
    const std::string& key, const std::function<void(int file, std::uint64_t size)>& read) const {
  check_key(key);
  with_context(path_of(key), [&] {
    retry_stale([&] {
      const UniqueFd file = open_object(key);
      struct stat info = {};
      if (::fstat(file.get(), &info) != 0) throw_stale_or("can't examine it");
      if (!S_ISREG(info.st_mode)) throw Error(ErrorKind::kNotFound, "there is no such object");
      read(file.get(), static_cast<std::uint64_t>(info.st_size));
    });
  });
}

UniqueFd DirectoryStore::open_object(const std::string& key) const {
  const SplitKey split = split_key(key);
  const UniqueFd directory = open_directory(root_fd_.get(), split.directory);
  // O_NONBLOCK, so that a pipe in an object's place does not stop us.
  UniqueFd file;
  if (directory) {
    file = UniqueFd(::openat(directory.get(), std::string(split.name).c_str(),
                             O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!file && errno != ENOENT) throw_stale_or("can't open it");
  }
  if (!file) throw Error(ErrorKind::kNotFound, "there is no such object");
  return file;
}

}  // namespace convoy
