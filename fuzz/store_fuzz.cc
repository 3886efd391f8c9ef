// Whatever stands in a store, with right digests and checksums: who lists, verifies, restores,
// continues and collects there gets an answer or convoy::Error, and a restore writes nothing
// outside of the volume. A libFuzzer target.
//
// An input says what is done, and describes a backup and its packs; fields that it has no bytes for
// are zero.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backup/backup_record.h"
#include "backup/backups.h"
#include "backup/collect_garbage.h"
#include "backup/create_backup.h"
#include "backup/frame.h"
#include "backup/layout.h"
#include "backup/lease.h"
#include "backup/pack.h"
#include "backup/restore_backup.h"
#include "backup/store.h"
#include "backup/tree_node.h"
#include "backup/verify_backup.h"
#include "backup/zstd_text.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/limits.h"
#include "objectstore/memory_store.h"
#include "sys/file.h"
#include "sys/unique_fd.h"

namespace convoy {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kGuard = kMiB;

void require(bool holds) {
  if (!holds) std::abort();
}

// Takes an input apart.
class Fields {
 public:
  explicit Fields(std::span<const std::byte> input) : rest_(input) {}

  bool empty() const { return rest_.empty(); }

  std::uint8_t byte() {
    const auto taken = bytes(1);
    return taken.empty() ? 0 : static_cast<std::uint8_t>(taken[0]);
  }
  std::uint32_t number() { return byte() | static_cast<std::uint32_t>(byte()) << 8U; }
  std::span<const std::byte> bytes(std::size_t count) {
    const auto taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const std::byte> rest_;
};

Uuid uuid_of(std::uint8_t last) {
  std::array<std::uint8_t, 16> bytes = {1, 0xa2, 7, 0x1d, 0x1f, 0x56, 0x7e, 0xb7, 0xac, 0x3c, 1};
  bytes.back() = last;
  return Uuid(bytes);
}

const Uuid kLineage = uuid_of(0);
const Uuid kBackup = uuid_of(1);

PackName pack_name(std::uint8_t number) {
  const PackKind kind = number % 2 == 0 ? PackKind::kTree : PackKind::kData;
  return {.kind = kind, .backup = kBackup, .number = number / 2U};
}

// Puts what an input describes.
class HostileStore {
 public:
  HostileStore(std::span<const std::byte> input, MemoryStore& objects)
      : fields_(input), objects_(objects) {}

  void fill() {
    BackupRecord record{
        .info = {.uuid = kBackup,
                 .created = {},
                 .source = {.lineage = kLineage,
                            .driver = "devicemapper",
                            .volume = {.uuid = kLineage,
                                       .name = "db",
                                       .created = {},
                                       .filesystem = "ext4"},
                            .snapshot = {.uuid = uuid_of(2), .name = "s", .created = {}},
                            .size = (fields_.number() % 4096 + 1U) * kSectorBytes},
                 .parent = std::nullopt,
                 .statistics = {}},
        .chunk_size = kMinChunkSize << fields_.byte() % 5U,
        .root = std::nullopt,
        .packs = {}};
    const unsigned packs = fields_.byte() % 5U;
    for (unsigned i = 0; i < packs; ++i) add_pack(record);
    if (fields_.byte() != 0) record.root = reference(PackKind::kTree);
    objects_.put(backup_key(kLineage, kBackup), compress_text(encode_record(record)));
    while (!fields_.empty()) add_object();
  }

 private:
  // To what stands there, if anything does: with its right digest, most often.
  Reference reference(PackKind kind) {
    PackName pack = pack_name(fields_.byte());
    pack.kind = kind;
    Reference reference{.pack = pack, .slot = fields_.byte(), .digest = {}};
    const auto found = digests_.find({pack, reference.slot});
    if (found != digests_.end()) reference.digest = found->second;
    return reference;
  }

  Bytes node() {
    const std::uint32_t level = fields_.byte() % 4U;
    TreeNode node;
    for (unsigned entries = fields_.byte() % 129U; entries > 0; --entries)
      node.entries[fields_.byte() % kTreeFanout] =
          reference(level == 0 ? PackKind::kData : PackKind::kTree);
    return encode_node(node, level);
  }

  Bytes plain() {
    switch (fields_.byte() % 4) {
      case 0:
        return node();
      case 1:
        return Bytes(kMinChunkSize << fields_.byte() % 5U, std::byte{fields_.byte()});
      case 2:
        return Bytes(fields_.number() * 4U, std::byte{fields_.byte()});
      default: {
        const auto bytes = fields_.bytes(fields_.number());
        return {bytes.begin(), bytes.end()};
      }
    }
  }

  void add_pack(BackupRecord& record) {
    const PackName name = pack_name(fields_.byte());
    Bytes pack;
    std::vector<PackSlot> slots;
    FrameEncoder encoder;
    for (unsigned frames = fields_.byte() % 64U; frames > 0; --frames) {
      const Bytes bytes = plain();
      const auto offset = static_cast<std::uint32_t>(pack.size());
      const std::uint32_t length = encoder.append(bytes, pack);
      slots.push_back({.offset = offset, .length = length, .digest = sha256(bytes)});
      digests_[{name, static_cast<std::uint32_t>(slots.size() - 1)}] = slots.back().digest;
    }
    const unsigned spoiled = fields_.byte();  // a slot, most often none
    if (spoiled < slots.size()) {
      slots[spoiled].offset = fields_.number() * 16U;
      slots[spoiled].length = fields_.number() * 16U;
    }
    append_footer(slots, encoder, pack);
    objects_.put(pack_key(kLineage, name), pack);
    record.packs[name] = {.size = pack.size() + fields_.byte(),
                          .references = fields_.byte() + std::uint64_t{1}};
  }

  // Any text where others work.
  void add_object() {
    const std::uint8_t kind = fields_.byte();
    const Uuid id = uuid_of(fields_.byte());
    const auto text = fields_.bytes(fields_.byte());
    constexpr std::array kParts = {LineagePart::kLeases, LineagePart::kPlans,
                                   LineagePart::kDamaged};
    if (kind % 4 < kParts.size())
      objects_.put(json_key(kLineage, kParts[kind % 4U], id), text);
    else
      objects_.put(backup_key(kLineage, id), compress_text(as_text(text)));
  }

  Fields fields_;
  MemoryStore& objects_;
  std::map<std::pair<PackName, std::uint32_t>, Digest> digests_;
};

template <typename Action>
void attempt(Action&& action) {
  try {
    action();
  } catch (const Error&) {  // the right answer to damage
  }
}

// A volume with room behind it in which nobody may write.
class Device {
 public:
  explicit Device(std::uint64_t size) : size_(size), fd_(::memfd_create("device", MFD_CLOEXEC)) {
    require(::ftruncate(fd_.get(), static_cast<off_t>(size + kGuard)) == 0);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() {
    Bytes guard(kGuard);
    read_exactly_at(fd_.get(), guard, size_);
    require(all_zero(guard) && file_size() == size_ + kGuard);
  }

  int fd() const { return fd_.get(); }
  Bytes content() const {
    Bytes content(size_);
    read_exactly_at(fd_.get(), content, 0);
    return content;
  }

 private:
  std::uint64_t file_size() const {
    return static_cast<std::uint64_t>(::lseek(fd_.get(), 0, SEEK_END));
  }

  std::uint64_t size_;
  UniqueFd fd_;
};

// Nothing where it can't be restored.
std::optional<Bytes> restored(const Store& store, const BackupRecord& record) {
  const Device device(record.info.source.size);
  try {
    restore_backup(store, record, device.fd(), {}, {});
    return device.content();
  } catch (const Error&) {  // the right answer to damage
    return std::nullopt;
  }
}

bool is_clean(const Store& store, const BackupRecord& record, VerifyDepth depth) {
  Verifier verifier(store, kLineage, depth);
  return verifier.verify(record, {}, {}).empty();
}

// What verification finds nothing wrong with can be restored.
void verify(const Store& store, const BackupRecord& record) {
  attempt([&] { is_clean(store, record, VerifyDepth::kQuick); });
  bool clean = false;
  attempt([&] { clean = is_clean(store, record, VerifyDepth::kFull); });
  require(!clean || restored(store, record));
}

// Around what is broken, nothing else comes out.
void restore_around_damage(const Store& store, const BackupRecord& record) {
  const std::optional<Bytes> sound = restored(store, record);
  const Device device(record.info.source.size);
  attempt([&] { restore_backup(store, record, device.fd(), {}, {}, [](const Damage&) {}); });
  require(!sound || device.content() == *sound);
}

// By a backup of a part that has changed.
void go_on(const Store& store, const BackupRecord& record) {
  const std::uint64_t size = record.info.source.size;
  const std::optional<Bytes> before = restored(store, record);
  const Device device(size);
  if (before) write_all_at(device.fd(), *before, 0);
  const Bytes changed(std::min<std::uint64_t>(size, 8 * kKiB), std::byte{7});
  write_all_at(device.fd(), changed, 0);
  const SourceRange range{.bytes = {0, changed.size()}, .kind = SourceKind::kRead};
  const BackupRecord next = create_backup(store,
                                          {.source = record.info.source,
                                           .device_fd = device.fd(),
                                           .parent = record.info.uuid,
                                           .ranges = {range}},
                                          {}, {});
  require(!before || restored(store, next) == device.content());
}

void tidy_up(const Store& store) {
  list_backups(store, std::nullopt);
  list_leases(store, kLineage);
  collect_garbage(store, kLineage, CollectionMode::kHalfDead, {}, {});
  delete_backup(store, kLineage, kBackup);
}

void run(std::span<const std::byte> input) {
  if (input.empty()) return;
  MemoryStore objects;
  const Store store = Store::open_or_create(objects, std::nullopt);
  HostileStore(input.subspan(1), objects).fill();
  // One of them, since each starts its threads, which takes longer than all the rest.
  attempt([&] {
    const auto what = std::to_integer<unsigned>(input[0]) % 4;
    if (what == 3) return tidy_up(store);
    const BackupRecord record = read_backup(store, kLineage, kBackup);
    if (what == 0) verify(store, record);
    if (what == 1) restore_around_damage(store, record);
    if (what == 2) go_on(store, record);
  });
}

}  // namespace
}  // namespace convoy

// libFuzzer's names (https://llvm.org/docs/LibFuzzer.html), and its types.
extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** /*arguments*/) {
  spdlog::set_level(spdlog::level::off);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  convoy::run(std::as_bytes(std::span(data, size)));
  return 0;
}
