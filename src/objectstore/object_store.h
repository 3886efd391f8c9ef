// Where backups are kept: a flat set of objects, each a key and some bytes. A directory is one
// kind, a bucket another.
//
// A key is made of components with '/' between them, such as "convoy/volumes/x/volume.json". No key
// may be the directory of another ("a" and "a/b"): directories can't hold that.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace convoy {

struct ObjectInfo {
  std::string key;
  std::uint64_t size = 0;
  // When it was put, by the store's own clock: not more than time_lag() before others could see it,
  // and not after put returned. Never to be compared with this host's clock.
  Timestamp modified;
};

enum class PutOutcome { kStored, kAlreadyThere };

// All calls are thread-safe. They throw kInvalidArgument for what is no key, kNoSpace if the store
// is full, kIo for whatever else goes wrong; each error names the object. Stores that are made with
// a stop token throw kCancelled after it. What a call throws besides is said with it.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // Puts an object, replacing one that is there. Readers see the old one or the new one, whole;
  // when this returns, the new one survives a power cut. After an error either may be there.
  virtual void put(const std::string& key, std::span<const std::byte> data) = 0;

  // Puts an object unless there is one. Of several callers at once, one is told kStored. As durable
  // as put.
  virtual PutOutcome put_if_absent(const std::string& key, std::span<const std::byte> data) = 0;

  // The whole object. Throws kNotFound if there is none, kCorrupt if it is larger than `max_size`.
  virtual std::vector<std::byte> get(const std::string& key, std::uint64_t max_size) = 0;

  // Reads what there is of `out.size()` bytes from `offset` and returns how much that is: less than
  // asked, or nothing, if the object ends before. Throws kNotFound if there is no object.
  virtual std::size_t get_range(const std::string& key, std::uint64_t offset,
                                std::span<std::byte> out) = 0;

  // Size and time of an object; nothing if there is none.
  virtual std::optional<ObjectInfo> head(const std::string& key) = 0;

  // Calls `visit` for every object whose key begins with `prefix`, in ascending order of keys (as
  // bytes). The prefix is a whole directory, empty or with a '/' at its end, so that "a/" never
  // means "ab/". Objects that come or go meanwhile may be visited or not; all others are. `visit`
  // may call the store.
  virtual void list(const std::string& prefix,
                    const std::function<void(const ObjectInfo&)>& visit) = 0;

  // The names, ascending and without '/', of the directories right under `prefix`. May name one
  // whose last object has just gone. A list() of a few lineages would otherwise have to go through
  // all their packs.
  virtual std::vector<std::string> list_directories(const std::string& prefix) = 0;

  // Removes an object; that there is none is no error. When this returns, a power cut does not
  // bring it back.
  virtual void remove(const std::string& key) = 0;

  // As remove for each of them. After an error, some may be removed.
  virtual void remove_all(std::span<const std::string> keys);

  // How much earlier an object's time may be than the moment at which others could see it. A server
  // that takes the time at the beginning of a put may need the rest of it.
  virtual std::chrono::milliseconds time_lag() const { return std::chrono::milliseconds(0); }
};

// True for 1 to 200 characters of [A-Za-z0-9._!-] that are neither "." nor "..". (Rancher Convoy
// fills short names up with '!'.)
bool is_key_component(std::string_view text);

// True for components with single '/' between them, 1000 characters at most.
bool is_key(std::string_view text);

// Throws kInvalidArgument unless `key` is one.
void check_key(std::string_view key);

// Throws kInvalidArgument unless `prefix` is empty or a key with '/' behind it.
void check_prefix(std::string_view prefix);

}  // namespace convoy
