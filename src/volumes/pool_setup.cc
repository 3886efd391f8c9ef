#include "volumes/pool_setup.h"

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/size.h"
#include "sys/aligned_buffer.h"
#include "sys/file.h"
#include "thinmeta/metadata.h"
#include "thinmeta/torn_hold.h"
#include "volumes/filesystem.h"
#include "volumes/pool_devices.h"
#include "volumes/pool_label.h"
#include "volumes/takeover.h"

namespace convoy {
namespace {

constexpr const char* kDefaultPoolName = "convoy-pool";
constexpr const char* kDefaultFilesystem = "ext4";

// A step of the pool takes a millisecond at least: a month of nothing else.
constexpr std::uint64_t kMostTransactionsBehind = 1ULL << 32U;

void clear_first_block(const std::filesystem::path& path) {
  AlignedBuffer zeros(kDirectAlignment);
  std::ranges::fill(zeros.bytes(), std::byte{0});
  const BlockDevice device = BlockDevice::open(path, Access::kReadWrite);
  write_all_at(device.fd(), zeros.bytes(), 0);
  fsync_file(device.fd(), path);
}

PoolTable table_of(const PoolRow& pool) {
  return {pool.name,       pool.uuid.to_string(), pool.data_device,    pool.metadata_device,
          pool.block_size, pool.low_watermark,    pool.queue_when_full};
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t step) {
  return (value + step - 1) / step * step;
}

void refuse_contradictions(const PoolRow& pool, const PoolOptions& options) {
  if (options.pool_name && *options.pool_name != pool.name) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.thinpoolname={} contradicts this root, whose pool is named {}; leave it out",
                *options.pool_name, pool.name);
  }
  if (options.block_size && *options.block_size != pool.block_size) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.thinpoolblocksize={} contradicts this root, whose pool has blocks of {} "
                "sectors; leave it out",
                options.block_size->count, pool.block_size.count);
  }
}

std::uint64_t check_default_size(std::uint64_t size, Sectors block_size) {
  if (size % block_size.bytes() == 0) return size;
  throw Error(ErrorKind::kInvalidArgument,
              "dm.defaultvolumesize={} is not a multiple of the pool's blocks of {}", size,
              format_size(block_size.bytes()));
}

// The pool is Rancher Convoy's, and not all of the takeover (takeover.h) is done.
bool is_being_taken_over(const PoolRow& pool) {
  return pool.state == PoolRow::State::kCreating && !pool.labelled;
}

// Throws unless the device holds the metadata of an inactive pool.
Metadata open_metadata(const std::filesystem::path& path) {
  BlockDevice device = BlockDevice::open(path, Access::kReadOnly);
  if (classify_metadata(device) == MetadataContent::kThinMetadata)
    return {std::move(device), Root::kLive};
  throw Error(ErrorKind::kInvalidArgument,
              "dm.metadatadev={} holds no thin pool's metadata; give the device that the pool was "
              "made on",
              path.native());
}

void mend_metadata_snapshot(const PoolRow& pool) {
  try {
    switch (mend_torn_hold(pool.metadata_device, pool.metadata_snapshot)) {
      case TornHold::kNone:
        return;
      case TornHold::kHalfTaken:
        spdlog::warn("the pool's metadata snapshot was left half taken, and is dropped");
        return;
      case TornHold::kHalfReleased:
        spdlog::warn(
            "the pool's metadata snapshot was left half released, and is held again to be "
            "released");
        return;
    }
  } catch (const Error& error) {
    // Volumes may be readable all the same; it is looked at again before it is released.
    if (error.kind() != ErrorKind::kCorrupt) throw;
    spdlog::error("the pool's metadata on {}: {}", pool.metadata_device.native(), error.message());
  }
}

// Throws unless they are this pool's, as far as it is known.
void require_same_pool(const PoolRow& pool, const std::filesystem::path& root, Metadata& metadata) {
  const std::uint64_t transaction = metadata.superblock().transaction_id;
  if (is_being_taken_over(pool)) {
    // Later, its transaction id tells it.
    if (transaction != pool.transaction_id)
      require_convoy_pool(read_convoy_root(root), pool, metadata);
    return;
  }
  // One more than we know if the last change was not recorded any more.
  if (transaction - pool.transaction_id > 1) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.metadatadev={} holds another pool (or another state of it): it is at "
                "transaction {}, this root's pool at {}",
                pool.metadata_device.native(), transaction, pool.transaction_id);
  }
}

// Before the kernel is given the metadata device: it would make a new pool of one that begins with
// zeros.
void check_metadata(const PoolRow& pool, const std::filesystem::path& root) {
  Metadata metadata = open_metadata(pool.metadata_device);
  require_same_pool(pool, root, metadata);
  mend_metadata_snapshot(pool);  // before thin_check is asked for, which takes one for damage
  if (metadata.superblock().needs_check) {
    throw Error(ErrorKind::kInvalidArgument,
                "the pool's metadata on {0} are marked as needing a check, which a full metadata "
                "device or a failing disk brings about: if that is mended, run thin_check "
                "--clear-needs-check-flag {0} (of the package thin-provisioning-tools); "
                "docs/operations.md has the way from there",
                pool.metadata_device.native());
  }
}

void check_data(const PoolRow& pool) {
  if (!pool.labelled || find_label(pool.data_device) == pool.uuid) return;
  throw Error(ErrorKind::kInvalidArgument,
              "dm.datadev={} does not hold the data of this root's pool {}; give the device that "
              "the pool was made on",
              pool.data_device.native(), pool.uuid.to_string());
}

// A pool that was being made has transaction 0 until it gets its label and its number.
void settle_new_pool(Catalog& catalog, ThinPool& kernel_pool, const PoolRow& pool) {
  const std::uint64_t actual = kernel_pool.status().transaction_id;
  if (actual == 0) {
    write_label(kernel_pool, pool);
    kernel_pool.set_transaction_id(0, pool.transaction_id);
  } else if (actual != pool.transaction_id) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.metadatadev={} holds another pool, at transaction {}",
                pool.metadata_device.native(), actual);
  }
  catalog.set_pool_ready();
}

// The row with what the options say anew. Changes nothing.
PoolRow apply_options(const PoolRow& known, const PoolOptions& options) {
  refuse_contradictions(known, options);
  PoolRow pool = known;
  if (options.default_volume_size)
    pool.default_size = check_default_size(*options.default_volume_size, pool.block_size);
  if (options.filesystem) pool.default_filesystem = *options.filesystem;
  if (options.low_watermark) pool.low_watermark = *options.low_watermark;
  if (options.queue_when_full) pool.queue_when_full = *options.queue_when_full;
  with_context("dm.fs", [&] { check_filesystem(pool.default_filesystem); });
  check_filesystem_size(pool.default_filesystem, pool.default_size);
  // The kernel uses all of larger ones as soon as it makes the pool. A data device that has no
  // label, or not yet, is known by its size alone.
  pool.data_device = choose_device(
      "dm.datadev", options.data_device, known.data_device, known.data_size,
      known.labelled && known.state == PoolRow::State::kReady ? Growth::kAllowed : Growth::kNo);
  pool.data_size = block_device_size(pool.data_device);
  pool.metadata_device =
      choose_device("dm.metadatadev", options.metadata_device, known.metadata_device,
                    known.metadata_size, Growth::kAllowed);
  pool.metadata_size = block_device_size(pool.metadata_device);
  return pool;
}

void check_adoptable(const ActivePool& active, const PoolRow& pool) {
  if (!active.dm_uuid.empty() &&
      active.dm_uuid != dm_uuid(pool.uuid.to_string(), pool.uuid.to_string())) {
    throw Error(ErrorKind::kInvalidArgument,
                "the active thin pool {} is not Rancher Convoy's, whose files are in this root: it "
                "has the dm UUID {}",
                pool.name, active.dm_uuid);
  }
  if (active.block_size != pool.block_size) {
    throw Error(ErrorKind::kInvalidArgument,
                "the active thin pool {} has blocks of {} sectors, but in Convoy's files they have "
                "{}",
                pool.name, active.block_size.count, pool.block_size.count);
  }
}

// Throws unless the devices are the pool's, and free for it if it isn't active.
void check_devices(const PoolRow& pool, const std::filesystem::path& root) {
  if (const std::optional<ActivePool> active = KernelThinPool::find(pool.name)) {
    check_active("dm.datadev", pool.data_device, active->data_device);
    check_active("dm.metadatadev", pool.metadata_device, active->metadata_device);
    if (is_being_taken_over(pool)) check_adoptable(*active, pool);
    return;
  }
  if (pool.state == PoolRow::State::kReady || is_being_taken_over(pool)) {
    require_free("dm.datadev", pool.data_device);
    require_free("dm.metadatadev", pool.metadata_device);
    check_metadata(pool, root);
    check_data(pool);
  }
}

// The row with what the options say of a pool that no catalog knows, but for what depends on its
// blocks. Whether the devices will do is not looked at, but that there are two.
PoolRow plan_row(const PoolOptions& options) {
  if (!options.data_device || !options.metadata_device) {
    throw Error(ErrorKind::kInvalidArgument, "{} is required: give --driver-opts {}=<block device>",
                options.data_device ? "dm.metadatadev" : "dm.datadev",
                options.data_device ? "dm.metadatadev" : "dm.datadev");
  }
  PoolRow pool;
  pool.name = options.pool_name.value_or(kDefaultPoolName);
  pool.data_device = *options.data_device;
  pool.metadata_device = *options.metadata_device;
  pool.default_filesystem = options.filesystem.value_or(kDefaultFilesystem);
  pool.low_watermark = options.low_watermark.value_or(kDefaultLowWatermark);
  pool.queue_when_full = options.queue_when_full.value_or(false);
  const dev_t data = require_block_device("dm.datadev", pool.data_device);
  const dev_t metadata = require_block_device("dm.metadatadev", pool.metadata_device);
  if (data == metadata) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.datadev and dm.metadatadev are the same device; the pool needs two");
  }
  pool.data_size = block_device_size(pool.data_device);
  pool.metadata_size = block_device_size(pool.metadata_device);
  return pool;
}

void set_blocks(PoolRow& pool, const PoolOptions& options, Sectors block_size) {
  pool.block_size = block_size;
  pool.default_size = options.default_volume_size
                          ? check_default_size(*options.default_volume_size, block_size)
                          : round_up(kDefaultVolumeSize, block_size.bytes());
  check_filesystem_size(pool.default_filesystem, pool.default_size);
}

PoolRow plan_new_pool(const PoolOptions& options, ForeignData foreign_data) {
  PoolRow pool = plan_row(options);
  set_blocks(pool, options, options.block_size.value_or(kDefaultPoolBlock));
  pool.uuid = Uuid::generate();
  pool.transaction_id = random_bits(48);
  require_free("dm.datadev", pool.data_device);
  require_free("dm.metadatadev", pool.metadata_device);
  // A block for the label, and one for a volume.
  require_size("dm.datadev", pool.data_device, 2 * pool.block_size.bytes());
  require_size("dm.metadatadev", pool.metadata_device, kMinMetadataDevice);
  if (KernelThinPool::find(pool.name)) {
    throw Error(ErrorKind::kAlreadyExists,
                "a thin pool named {} is active already; choose another dm.thinpoolname, or the "
                "--root it belongs to",
                pool.name);
  }
  if (foreign_data == ForeignData::kRefuse) require_no_data(pool.data_device, pool.metadata_device);
  return pool;
}

// Throws unless metadata and data device look as if they were of one pool: the sizes agree, and the
// label is where the metadata say that it is.
void require_one_pool(const PoolRow& pool, Metadata& metadata) {
  bool labelled = false;
  if (metadata.find_device(kLabelThinId.value)) {
    metadata.mappings(kLabelThinId.value, [&](const Mapping& mapping) {
      labelled = labelled || (mapping.block.count == 0 && mapping.data_block == 0);
    });
  }
  const std::uint64_t blocks = pool.data_size / pool.block_size.bytes();
  if (labelled && metadata.superblock().data_blocks == blocks) return;
  throw Error(ErrorKind::kInvalidArgument,
              "dm.metadatadev={} is not of the pool whose data dm.datadev={} holds: give the two "
              "devices that one pool was made on",
              pool.metadata_device.native(), pool.data_device.native());
}

PoolRow plan_takeover(const std::filesystem::path& root, const PoolOptions& options) {
  PoolRow pool = row_of(read_convoy_root(root).pool);
  // Convoy did not write down its size.
  const std::filesystem::path metadata = options.metadata_device.value_or(pool.metadata_device);
  if (block_device_number(metadata)) pool.metadata_size = block_device_size(metadata);
  pool = apply_options(pool, options);
  check_devices(pool, root);
  return pool;
}

std::unique_ptr<KernelThinPool> create_pool(Catalog& catalog, const PoolRow& plan,
                                            int guard_lock_fd) {
  // Zero already, or foreign data that may be destroyed. Before the catalog vouches for what is
  // there.
  clear_first_block(plan.metadata_device);
  catalog.insert_pool(plan);
  std::unique_ptr<KernelThinPool> kernel_pool;
  try {
    kernel_pool = std::make_unique<KernelThinPool>(table_of(plan), guard_lock_fd);
    settle_new_pool(catalog, *kernel_pool, plan);
  } catch (const Error&) {
    if (kernel_pool) kernel_pool->shut_down();
    catalog.remove_pool();
    throw;
  }
  return kernel_pool;
}

std::unique_ptr<KernelThinPool> open_pool(Catalog& catalog, const PoolRow& known,
                                          const std::filesystem::path& root,
                                          const PoolOptions& options, int guard_lock_fd) {
  const PoolRow pool = apply_options(known, options);
  check_devices(pool, root);
  using WithoutUuid = KernelThinPool::WithoutUuid;
  auto kernel_pool = std::make_unique<KernelThinPool>(
      table_of(pool), guard_lock_fd,
      is_being_taken_over(pool) ? WithoutUuid::kAccepted : WithoutUuid::kRefused);
  if (is_being_taken_over(pool)) {
    finish_takeover(catalog, *kernel_pool, pool, root);
  } else if (pool.state == PoolRow::State::kCreating) {
    settle_new_pool(catalog, *kernel_pool, pool);
  }

  if (pool.data_size != known.data_size || pool.metadata_size != known.metadata_size)
    catalog.set_pool_devices(pool);
  if (pool.data_device != known.data_device || pool.metadata_device != known.metadata_device) {
    spdlog::warn("the pool's devices are now {} and {} (they were {} and {})",
                 pool.data_device.native(), pool.metadata_device.native(),
                 known.data_device.native(), known.metadata_device.native());
    catalog.set_pool_devices(pool);
  }
  if (pool.default_size != known.default_size ||
      pool.default_filesystem != known.default_filesystem) {
    spdlog::info("new volumes are from now on {} of {} by default", format_size(pool.default_size),
                 pool.default_filesystem);
  }
  catalog.set_pool_settings(pool);
  try {
    kernel_pool->apply_settings();
  } catch (const Error& error) {
    // A pool that is read-only is no reason not to start: its volumes can be read.
    spdlog::error("{}", error.message());
  }
  return kernel_pool;
}

// True if the kernel has got as far as making the pool that the catalog says is being made.
bool was_begun(const PoolRow& pool) {
  if (KernelThinPool::find(pool.name)) return true;
  if (!block_device_number(pool.metadata_device)) return false;
  BlockDevice device = BlockDevice::open(pool.metadata_device, Access::kReadOnly);
  if (classify_metadata(device) != MetadataContent::kThinMetadata) return false;
  const std::uint64_t transaction =
      Metadata(std::move(device), Root::kLive).superblock().transaction_id;
  return transaction == 0 || transaction == pool.transaction_id;
}

}  // namespace

PoolRow plan_first_pool(const std::filesystem::path& root, const PoolOptions& options,
                        ForeignData foreign_data) {
  if (!has_convoy_pool(root)) return plan_new_pool(options, foreign_data);
  if (foreign_data == ForeignData::kOverwrite) {
    throw Error(ErrorKind::kInvalidArgument,
                "{}/devicemapper/devicemapper.cfg tells of a pool of Rancher Convoy, which "
                "--force-new-pool would destroy: start without it to take the pool over, or move "
                "that file away",
                root.native());
  }
  return plan_takeover(root, options);
}

PoolRow plan_adoption(const PoolOptions& options) {
  PoolRow pool = plan_row(options);
  if (const std::optional<ActivePool> active = KernelThinPool::find(pool.name)) {
    set_blocks(pool, options, active->block_size);
  } else {
    require_free("dm.datadev", pool.data_device);
    require_free("dm.metadatadev", pool.metadata_device);
    Metadata metadata = open_metadata(pool.metadata_device);
    set_blocks(pool, options, metadata.superblock().data_block_size);
    pool.transaction_id = metadata.superblock().transaction_id;
    require_one_pool(pool, metadata);
  }
  const std::optional<Uuid> label = find_label(pool.data_device);
  if (!label) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.datadev={} does not begin with the mark of a pool of convoy; give the device "
                "that the pool was made on",
                pool.data_device.native());
  }
  pool.uuid = *label;
  return pool;
}

std::unique_ptr<KernelThinPool> open_known_pool(Catalog& catalog, const std::filesystem::path& root,
                                                const PoolOptions& options, int guard_lock_fd) {
  std::optional<PoolRow> pool = catalog.pool();
  if (!pool || pool->state != PoolRow::State::kReady)
    throw Error(ErrorKind::kCorrupt, "the catalog tells of no pool");
  const std::filesystem::path metadata_device =
      options.metadata_device.value_or(pool->metadata_device);
  const auto note_transaction = [&](std::uint64_t actual) {
    const bool is_known = pool->transaction_id != 0;
    if (is_known && actual - pool->transaction_id > kMostTransactionsBehind) {
      throw Error(ErrorKind::kInvalidArgument,
                  "dm.metadatadev={} holds another pool: it is at transaction {}, and this root's "
                  "was at {}",
                  metadata_device.native(), actual, pool->transaction_id);
    }
    pool->transaction_id = actual;
    catalog.set_pool_transaction(actual);
  };
  const bool is_active = KernelThinPool::find(pool->name).has_value();
  if (!is_active) {
    require_block_device("dm.metadatadev", metadata_device);
    note_transaction(open_metadata(metadata_device).superblock().transaction_id);
  }
  auto kernel_pool = open_pool(catalog, *pool, root, options, guard_lock_fd);
  if (is_active) note_transaction(kernel_pool->status().transaction_id);
  return kernel_pool;
}

std::unique_ptr<KernelThinPool> bring_up_pool(Catalog& catalog, const std::filesystem::path& root,
                                              const PoolOptions& options, ForeignData foreign_data,
                                              int guard_lock_fd) {
  std::optional<PoolRow> pool = catalog.pool();
  if (pool) KernelThinPool::remove_unfinished_pool(pool->name, pool->uuid.to_string());
  if (pool && pool->state == PoolRow::State::kCreating && pool->labelled && !was_begun(*pool)) {
    catalog.remove_pool();
    pool.reset();
  }
  if (!pool) {
    pool = plan_first_pool(root, options, foreign_data);
    if (pool->labelled) return create_pool(catalog, *pool, guard_lock_fd);
    catalog.insert_pool(*pool);
  }
  if (pool->state == PoolRow::State::kReady && foreign_data == ForeignData::kOverwrite) {
    throw Error(ErrorKind::kInvalidArgument,
                "--force-new-pool: the root {} has its pool already, on {} and {}; start without "
                "it, or give a new --root",
                root.native(), pool->data_device.native(), pool->metadata_device.native());
  }
  if (!pool->labelled && pool->state == PoolRow::State::kReady && has_convoy_pool(root)) {
    throw Error(
        ErrorKind::kInvalidArgument,
        "{0}/devicemapper/devicemapper.cfg is back, but its pool was taken over: if Rancher "
        "Convoy has used the pool since then, move {0}/catalog.db away, to take it over "
        "anew; else move that file away",
        root.native());
  }
  return open_pool(catalog, *pool, root, options, guard_lock_fd);
}

}  // namespace convoy
