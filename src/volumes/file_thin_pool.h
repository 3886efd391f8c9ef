// A thin pool of files in a directory, for tests on a host without device mapper. What the kernel
// does with blocks it does with whole files: nothing is shared, and a snapshot is a copy.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/limits.h"
#include "devmapper/thin_pool.h"
#include "sys/file.h"
#include "sys/unique_fd.h"
#include "thinmeta/test_image.h"

namespace convoy {

class FileThinPool : public ThinPool {
 public:
  static constexpr Sectors kBlock = kMinPoolBlock;

  explicit FileThinPool(std::filesystem::path directory)
      : directory_(std::move(directory)), metadata_(directory_ / "metadata") {
    std::filesystem::create_directories(directory_ / "thin");
    std::filesystem::create_directories(directory_ / "mapper");
  }

  std::size_t thin_devices() const {
    const std::lock_guard lock(mutex_);
    return devices_.size();
  }

  PoolStatus status() override {
    const std::lock_guard lock(mutex_);
    PoolStatus status;
    status.transaction_id = transaction_id_;
    status.total_metadata_blocks = 1U << 14U;
    status.total_data = {1U << 20U};
    status.metadata_snapshot = held_;
    return status;
  }

  Effect create_thin(ThinId id) override {
    const std::lock_guard lock(mutex_);
    if (devices_.contains(id.value)) return Effect::kUnchanged;
    add(id);
    return Effect::kChanged;
  }

  Effect create_snapshot(ThinId snapshot, ThinId origin,
                         const std::optional<std::string>& /*origin_name*/) override {
    const std::lock_guard lock(mutex_);
    if (devices_.contains(snapshot.value)) return Effect::kUnchanged;
    require(origin);
    add(snapshot);
    std::filesystem::copy_file(file_of(origin), file_of(snapshot),
                               std::filesystem::copy_options::overwrite_existing);
    return Effect::kChanged;
  }

  Effect delete_thin(ThinId id) override {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, device] : active_) {
      if (device.thin_id == id) throw Error(ErrorKind::kBusy, "thin device {} is active", id.value);
    }
    if (devices_.erase(id.value) == 0) return Effect::kUnchanged;
    std::filesystem::remove(file_of(id));
    return Effect::kChanged;
  }

  void set_transaction_id(std::uint64_t from, std::uint64_t to) override {
    const std::lock_guard lock(mutex_);
    if (transaction_id_ != from) throw Error(ErrorKind::kIo, "the pool is at another transaction");
    transaction_id_ = to;
  }

  void grow() override {}

  // Blocks of the same content are the same block of the pool.
  void reserve_metadata_snapshot() override {
    const std::lock_guard lock(mutex_);
    if (held_ != 0) throw Error(ErrorKind::kBusy, "a metadata snapshot is held");
    thinmeta::TestImage image;
    for (const auto& [id, details] : devices_) {
      thinmeta::TestImage::Entries entries;
      const std::string content = read_text_file(file_of({id}));
      for (std::size_t at = 0; at < content.size(); at += kBlock.bytes()) {
        const auto block = as_bytes(std::string_view(content).substr(at, kBlock.bytes()));
        if (all_zero(block)) continue;
        const std::uint64_t number =
            data_block_of_.emplace(sha256(block), data_block_of_.size()).first->second;
        entries.emplace_back(at / kBlock.bytes(), thinmeta::mapping(number));
      }
      image.add_device(id, image.add_leaf(entries), details);
    }
    image.finish();
    const std::uint64_t held = image.hold();
    const UniqueFd file = open_file(metadata_, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    write_all_at(file.get(), image.bytes(), 0);
    held_ = held;
  }
  void release_metadata_snapshot() override {
    const std::lock_guard lock(mutex_);
    held_ = 0;
  }
  const std::filesystem::path& metadata_device() const override { return metadata_; }

  std::filesystem::path device_path(const std::string& name) const override {
    return directory_ / "mapper" / name;
  }
  void activate(const std::string& name, const std::string& object_uuid, ThinId id, Sectors size,
                Access /*access*/) override {
    const std::lock_guard lock(mutex_);
    require(id);
    if (active_.contains(name)) throw Error(ErrorKind::kAlreadyExists, "{} is active", name);
    std::filesystem::resize_file(file_of(id), size.bytes());
    std::filesystem::create_symlink(file_of(id), device_path(name));
    active_[name] = {.name = name, .object_uuid = object_uuid, .thin_id = id, .size = size};
  }
  Effect deactivate(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    if (active_.erase(name) == 0) return Effect::kUnchanged;
    std::filesystem::remove(device_path(name));
    return Effect::kChanged;
  }
  void resume(const std::string& /*name*/) override {}

  std::vector<ActiveThin> active() override {
    const std::lock_guard lock(mutex_);
    std::vector<ActiveThin> devices;
    devices.reserve(active_.size());
    for (const auto& [name, device] : active_) devices.push_back(device);
    return devices;
  }
  std::map<std::uint32_t, std::string> active_in_others() override { return {}; }
  bool name_in_use(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    return active_.contains(name);
  }
  std::optional<Sectors> mapped(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto found = active_.find(name);
    if (found == active_.end()) return std::nullopt;
    return found->second.size;
  }
  std::optional<dev_t> device_number(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto found = active_.find(name);
    if (found == active_.end()) return std::nullopt;
    return makedev(4095, found->second.thin_id.value);  // nothing is mounted of it
  }

 private:
  std::filesystem::path file_of(ThinId id) const {
    return directory_ / "thin" / std::to_string(id.value);
  }
  void add(ThinId id) {
    devices_[id.value] = {.mapped_blocks = 0, .transaction_id = transaction_id_};
    open_file(file_of(id), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  }
  void require(ThinId id) const {
    if (!devices_.contains(id.value))
      throw Error(ErrorKind::kIo, "there is no thin device {}", id.value);
  }

  const std::filesystem::path directory_;
  const std::filesystem::path metadata_;
  mutable std::mutex mutex_;
  std::map<std::uint32_t, DeviceDetails> devices_;
  std::map<std::string, ActiveThin> active_;
  std::map<Digest, std::uint64_t> data_block_of_;
  std::uint64_t transaction_id_ = 1000;
  std::uint64_t held_ = 0;
};

}  // namespace convoy
