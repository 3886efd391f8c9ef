// Objects in memory, for tests: with a clock that they set, and a hook to fail or do something else
// between two calls. It passes the conformance suite, so what is shown with it holds for the
// others.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "objectstore/object_store.h"

namespace convoy {

class MemoryStore : public ObjectStore {
 public:
  enum class Call { kPut, kPutIfAbsent, kGet, kGetRange, kHead, kList, kRemove };

  struct Object {
    std::vector<std::byte> data;
    Timestamp modified;
  };
  using Objects = std::map<std::string, Object>;

  // Called before each call that comes from outside of the hook; the call fails with what it
  // throws. Set while nobody else uses the store.
  std::function<void(Call, const std::string& key)> hook;

  // What the store's clock tells is a multiple of this.
  std::chrono::milliseconds clock_step{1};

  // An object's time may be so much earlier than the moment at which it can be seen: a test has to
  // see to that.
  std::chrono::milliseconds lag{0};
  std::chrono::milliseconds time_lag() const override { return lag; }

  // Lets the store's clock go on. Besides, each put takes a millisecond.
  void advance(std::chrono::milliseconds time) {
    const std::scoped_lock lock(mutex_);
    clock_ += time;
  }

  void set_clock(Timestamp time) {
    const std::scoped_lock lock(mutex_);
    clock_ = time;
  }

  // All there is, to look at, to damage, or to go back to.
  Objects objects() const {
    const std::scoped_lock lock(mutex_);
    return objects_;
  }
  void set_objects(Objects objects) {
    const std::scoped_lock lock(mutex_);
    objects_ = std::move(objects);
  }

  void put(const std::string& key, std::span<const std::byte> data) override {
    begin(Call::kPut, key);
    const std::scoped_lock lock(mutex_);
    objects_[key] = {.data = {data.begin(), data.end()}, .modified = time_of_put()};
  }

  PutOutcome put_if_absent(const std::string& key, std::span<const std::byte> data) override {
    begin(Call::kPutIfAbsent, key);
    const std::scoped_lock lock(mutex_);
    Object object{.data = {data.begin(), data.end()}, .modified = time_of_put()};
    const bool stored = objects_.emplace(key, std::move(object)).second;
    return stored ? PutOutcome::kStored : PutOutcome::kAlreadyThere;
  }

  std::vector<std::byte> get(const std::string& key, std::uint64_t max_size) override {
    begin(Call::kGet, key);
    const std::scoped_lock lock(mutex_);
    const Object& object = find(key);
    if (object.data.size() > max_size) throw Error(ErrorKind::kCorrupt, "{} is too large", key);
    return object.data;
  }

  std::size_t get_range(const std::string& key, std::uint64_t offset,
                        std::span<std::byte> out) override {
    begin(Call::kGetRange, key);
    const std::scoped_lock lock(mutex_);
    const std::vector<std::byte>& data = find(key).data;
    const std::size_t begin = std::min<std::size_t>(offset, data.size());
    const std::size_t count = std::min(out.size(), data.size() - begin);
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(begin), count, out.begin());
    return count;
  }

  std::optional<ObjectInfo> head(const std::string& key) override {
    begin(Call::kHead, key);
    const std::scoped_lock lock(mutex_);
    const auto found = objects_.find(key);
    if (found == objects_.end()) return std::nullopt;
    return info_of(*found);
  }

  void list(const std::string& prefix,
            const std::function<void(const ObjectInfo&)>& visit) override {
    check_prefix(prefix);
    if (hook_may_run()) run_hook(Call::kList, prefix);
    std::vector<ObjectInfo> found;
    {
      const std::scoped_lock lock(mutex_);
      for (const auto& object : objects_) {
        if (object.first.starts_with(prefix)) found.push_back(info_of(object));
      }
    }
    for (const ObjectInfo& info : found) visit(info);
  }

  std::vector<std::string> list_directories(const std::string& prefix) override {
    std::vector<std::string> names;
    list(prefix, [&](const ObjectInfo& info) {
      const std::string rest = info.key.substr(prefix.size());
      if (rest.find('/') != std::string::npos) names.push_back(rest.substr(0, rest.find('/')));
    });
    std::ranges::sort(names);
    const auto repeated = std::ranges::unique(names);
    names.erase(repeated.begin(), repeated.end());
    return names;
  }

  void remove(const std::string& key) override {
    begin(Call::kRemove, key);
    const std::scoped_lock lock(mutex_);
    objects_.erase(key);
  }

 private:
  static bool& in_hook() {
    thread_local bool inside = false;
    return inside;
  }

  bool hook_may_run() const { return hook && !in_hook(); }

  void run_hook(Call call, const std::string& key) const {
    struct Inside {
      Inside() { in_hook() = true; }
      ~Inside() { in_hook() = false; }
    } const inside;
    hook(call, key);
  }

  void begin(Call call, const std::string& key) {
    check_key(key);
    if (hook_may_run()) run_hook(call, key);
  }

  const Object& find(const std::string& key) const {
    const auto found = objects_.find(key);
    if (found == objects_.end()) throw Error(ErrorKind::kNotFound, "there is no object {}", key);
    return found->second;
  }

  Timestamp time_of_put() {
    clock_ += std::chrono::milliseconds(1);
    return Timestamp(clock_.time_since_epoch() / clock_step * clock_step);
  }

  static ObjectInfo info_of(const Objects::value_type& object) {
    return {
        .key = object.first, .size = object.second.data.size(), .modified = object.second.modified};
  }

  mutable std::mutex mutex_;
  Objects objects_;
  Timestamp clock_ = now();
};

}  // namespace convoy
