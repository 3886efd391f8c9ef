#include "devmapper/kernel_thin_pool.h"

#include <cerrno>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/sysmacros.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "base/limits.h"
#include "devmapper/raw_ioctl.h"

namespace convoy {
namespace {

constexpr std::string_view kUuidPrefix = "CONVOY-";

dev_t parse_device(const std::string& text) {
  unsigned major_number = 0, minor_number = 0;
  char colon = 0;
  std::istringstream in(text);
  in >> major_number >> colon >> minor_number;
  if (!in || colon != ':')
    throw Error(ErrorKind::kCorrupt, "'{}' is not a device number in a dm table", text);
  return makedev(major_number, minor_number);
}

// Creates a device with its table in one step: libdevmapper's CREATE with a target loads and
// resumes too, and removes what it made if that fails.
void create_device(const std::string& name, const std::string& uuid, Sectors length,
                   const std::string& type, const std::string& parameters, Access access) {
  DmTask task(DM_DEVICE_CREATE, name);
  task.set_uuid(uuid);
  if (access == Access::kReadOnly) task.set_read_only();
  task.add_target(length, type, parameters);
  const int error = task.try_run();
  if (error == EEXIST)
    throw Error(ErrorKind::kAlreadyExists, "a dm device named {} exists already", name);
  if (error == EBUSY)
    throw Error(ErrorKind::kBusy, "a dm device named {} exists already, or its devices are in use",
                name);
  if (error != 0) throw system_error(error, fmt::format("can't make the dm device {}", name));
}

void remove_device(const std::string& name) {
  // udev and scanners open a device that was just closed or made: for a moment it is busy.
  for (auto waited = std::chrono::milliseconds(0);; waited += kBusyRetryStep) {
    DmTask task(DM_DEVICE_REMOVE, name);
    const int error = task.try_run();
    if (error == 0 || error == ENXIO) return;
    if (error != EBUSY)
      throw system_error(error, fmt::format("can't remove the dm device {}", name));
    if (waited >= kBusyRetryLimit) {
      throw Error(ErrorKind::kBusy,
                  "/dev/mapper/{} is in use: another program or mount has it open", name);
    }
    std::this_thread::sleep_for(kBusyRetryStep);
  }
}

void resume_device(const std::string& name) {
  DmTask(DM_DEVICE_RESUME, name).run();
}

// A device can be given a UUID once, whoever has it open.
void give_uuid(const std::string& name, const std::string& uuid) {
  DmTask task(DM_DEVICE_RENAME, name);
  task.set_new_uuid(uuid);
  task.run();
}

// The whole table of a device that others may have made; nothing if it is not one line.
std::optional<DmTarget> only_line(const std::string& name) {
  try {
    return dm_table(name);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) throw;
    return std::nullopt;
  }
}

// All of the data device that makes whole blocks.
Sectors data_length(const PoolTable& table) {
  const std::uint64_t blocks = block_device_size(table.data_device) / table.block_size.bytes();
  return {blocks * table.block_size.count};
}

std::set<std::string> pool_features(const PoolTable& table) {
  std::set<std::string> features;
  if (!table.queue_when_full) features.insert("error_if_no_space");
  // The kernel falls back to this by itself when the data device can't discard whole pool blocks,
  // with a warning in its log.
  const std::optional<dev_t> data = block_device_number(table.data_device);
  if (!data || max_discard_bytes(*data) < table.block_size.bytes())
    features.insert("no_discard_passdown");
  return features;
}

// In free blocks, as the kernel takes it.
std::uint64_t low_water_blocks(const PoolTable& table, Sectors length) {
  return length.count / table.block_size.count * (100 - table.low_watermark) / 100;
}

std::string pool_parameters(const PoolTable& table, Sectors length) {
  const std::set<std::string> features = pool_features(table);
  return fmt::format("{} {} {} {} {} {}", table.metadata_device.native(),
                     table.data_device.native(), table.block_size.count,
                     low_water_blocks(table, length), features.size(), fmt::join(features, " "));
}

}  // namespace

std::string dm_uuid(const std::string& pool_uuid, const std::string& object_uuid) {
  return fmt::format("{}{}-{}", kUuidPrefix, pool_uuid, object_uuid);
}

std::optional<ActivePool> KernelThinPool::find(const std::string& name) {
  const std::optional<DmInfo> info = dm_info(name);
  if (!info) return std::nullopt;
  const std::optional<DmTarget> table = only_line(name);
  if (!table || table->type != "thin-pool") {
    throw Error(ErrorKind::kAlreadyExists,
                "a dm device named {} exists and is no thin pool; choose another dm.thinpoolname",
                name);
  }
  ActivePool pool;
  pool.dm_uuid = info->uuid;
  std::string metadata, data;
  std::istringstream in(table->parameters);
  in >> metadata >> data >> pool.block_size.count;
  pool.metadata_device = parse_device(metadata);
  pool.data_device = parse_device(data);
  return pool;
}

void KernelThinPool::remove_unfinished_pool(const std::string& name, const std::string& pool_uuid) {
  const std::optional<DmInfo> info = dm_info(name);
  if (info && !info->has_table && info->uuid == dm_uuid(pool_uuid, pool_uuid)) remove_device(name);
}

void KernelThinPool::make_ours() {
  if (dm_info(table_.name).value().uuid.empty())
    give_uuid(table_.name, dm_uuid(table_.uuid, table_.uuid));
  // One pool's features differ from another's: in one with skip_block_zeroing, new volumes would
  // show what was in their blocks before.
  reload(dm_table(table_.name).value().length);
}

void KernelThinPool::apply_settings() {
  const DmTarget table = dm_table(table_.name).value();
  std::string metadata, data;
  std::uint64_t block = 0, low_water = 0, count = 0;
  std::istringstream in(table.parameters);
  in >> metadata >> data >> block >> low_water >> count;
  const std::set<std::string> features(std::istream_iterator<std::string>(in), {});
  if (low_water != low_water_blocks(table_, table.length) || features != pool_features(table_))
    reload(table.length);
}

void KernelThinPool::grow() {
  const Sectors length = data_length(table_);
  if (length.count < dm_table(table_.name).value().length.count) {
    throw Error(ErrorKind::kInvalidArgument,
                "the pool's data device {} has become smaller; make it as large as it was",
                table_.data_device.native());
  }
  reload(length);
}

void KernelThinPool::reload(Sectors length) {
  DmTask load(DM_DEVICE_RELOAD, table_.name);
  load.add_target(length, "thin-pool", pool_parameters(table_, length));
  load.run();
  // One request suspends, changes the table and resumes, so nobody is left suspended by our death.
  try {
    resume_device(table_.name);
  } catch (const Error& error) {
    // Then it is suspended. Without the new table it can be resumed with the old one.
    DmTask(DM_DEVICE_CLEAR, table_.name).try_run();
    DmTask(DM_DEVICE_RESUME, table_.name).try_run();
    throw Error(
        error.kind(),
        "the running pool {0} can't be given our settings: {1}; 'dmsetup info {0}' must not "
        "say that it is suspended, else run: dmsetup resume {0}",
        table_.name, error.message());
  }
}

Adoption KernelThinPool::adopt(const std::string& name, const std::string& object_uuid, ThinId id,
                               Sectors size) {
  const std::optional<DmInfo> info = dm_info(name);
  if (!info) return Adoption::kInactive;
  if (info->uuid == dm_uuid(table_.uuid, object_uuid)) return Adoption::kAdopted;
  const dev_t pool = dm_info(table_.name).value().device;
  const std::optional<DmTarget> line = only_line(name);
  if (!info->uuid.empty() || !line || line->length != size || line->type != "thin" ||
      line->parameters != fmt::format("{}:{} {}", major(pool), minor(pool), id.value)) {
    return Adoption::kForeign;
  }
  give_uuid(name, dm_uuid(table_.uuid, object_uuid));
  return Adoption::kAdopted;
}

KernelThinPool::KernelThinPool(PoolTable table, int guard_lock_fd, WithoutUuid without_uuid)
    : table_(std::move(table)), guard_(guard_lock_fd) {
  try {
    settle_dm_nodes();
  } catch (const Error& error) {
    spdlog::warn("nodes under /dev/mapper may be missing, or left over: {}", error.message());
  }
  if (const std::optional<DmInfo> existing = dm_info(table_.name)) {
    const bool accepted = existing->uuid.empty() && without_uuid == WithoutUuid::kAccepted;
    if (existing->uuid != dm_uuid(table_.uuid, table_.uuid) && !accepted) {
      throw Error(ErrorKind::kAlreadyExists,
                  "a dm device named {} exists that is not this pool (its UUID is '{}'); choose "
                  "another dm.thinpoolname",
                  table_.name, existing->uuid);
    }
    if (existing->suspended) resume_device(table_.name);
    return;
  }
  const Sectors length = data_length(table_);
  create_device(table_.name, dm_uuid(table_.uuid, table_.uuid), length, "thin-pool",
                pool_parameters(table_, length), Access::kReadWrite);
}

void KernelThinPool::shut_down() {
  remove_device(table_.name);
}

PoolStatus KernelThinPool::status() {
  const std::optional<DmTarget> status = dm_status(table_.name);
  if (!status || status->type != "thin-pool") {
    throw Error(ErrorKind::kIo, "the thin pool {} is gone from the kernel", table_.name);
  }
  return parse_pool_status(status->parameters);
}

int KernelThinPool::send(const std::string& message) {
  const UniqueFd control = open_dm_control();
  if (!control) throw system_error(errno, "can't open /dev/mapper/control");
  const int error = RawIoctl::prepare_message(to_dm_name(table_.name), message.c_str())
                        .run(control, DM_TARGET_MSG);
  spdlog::debug("pool {}: {} -> {}", table_.name, message, error);
  if (error == 0) crash_point("message to the pool");
  return error;
}

Effect KernelThinPool::create_thin(ThinId id) {
  const int error = send(fmt::format("create_thin {}", id.value));
  if (error == EEXIST) return Effect::kUnchanged;
  if (error != 0)
    throw system_error(error,
                       fmt::format("pool {}: can't create thin device {}", table_.name, id.value));
  return Effect::kChanged;
}

int KernelThinPool::snapshot_active(ThinId snapshot, ThinId origin,
                                    const std::string& origin_name) {
  try {
    const int error = guard_.snapshot({table_.name, origin_name, origin.value, snapshot.value});
    if (error == 0) crash_point("snapshot by the guard");
    return error;
  } catch (const Error&) {
    // Whatever the guard died of, nobody is to wait for its resume.
    const std::optional<DmInfo> info = dm_info(origin_name);
    if (info && info->suspended) resume(origin_name);
    throw;
  }
}

Effect KernelThinPool::create_snapshot(ThinId snapshot, ThinId origin,
                                       const std::optional<std::string>& origin_name) {
  const int error = origin_name
                        ? snapshot_active(snapshot, origin, *origin_name)
                        : send(fmt::format("create_snap {} {}", snapshot.value, origin.value));
  if (error == EEXIST) return Effect::kUnchanged;
  if (error != 0) {
    throw system_error(
        error, fmt::format("pool {}: can't snapshot thin device {}", table_.name, origin.value));
  }
  return Effect::kChanged;
}

Effect KernelThinPool::delete_thin(ThinId id) {
  const int error = send(fmt::format("delete {}", id.value));
  if (error == ENODATA) return Effect::kUnchanged;
  if (error != 0)
    throw system_error(error,
                       fmt::format("pool {}: can't delete thin device {}", table_.name, id.value));
  return Effect::kChanged;
}

void KernelThinPool::set_transaction_id(std::uint64_t from, std::uint64_t to) {
  const int error = send(fmt::format("set_transaction_id {} {}", from, to));
  if (error != 0) {
    throw system_error(
        error, fmt::format("pool {}: can't go from transaction {} to {}", table_.name, from, to));
  }
  // The kernel answers with success also if the commit fails that belongs to it (dm-thin.c,
  // pool_message), and then goes back to the transaction before.
  const PoolStatus now = status();
  if (now.transaction_id != to || now.mode == PoolStatus::Mode::kReadOnly ||
      now.mode == PoolStatus::Mode::kFailed)
    throw Error(ErrorKind::kIo,
                "pool {}: transaction {} may not have been committed: can its metadata device be "
                "written?",
                table_.name, to);
}

void KernelThinPool::reserve_metadata_snapshot() {
  const int error = send("reserve_metadata_snap");
  if (error != 0)
    throw system_error(error, fmt::format("pool {}: can't hold a metadata snapshot", table_.name));
}

void KernelThinPool::release_metadata_snapshot() {
  const int error = send("release_metadata_snap");
  if (error != 0)
    throw system_error(error,
                       fmt::format("pool {}: can't release the metadata snapshot", table_.name));
}

bool KernelThinPool::is_ours(const DmInfo& info) const {
  return info.uuid.starts_with(dm_uuid(table_.uuid, ""));
}

void KernelThinPool::remove_unfinished(const std::string& name) {
  const std::optional<DmInfo> info = dm_info(name);
  if (info && !info->has_table && is_ours(*info)) remove_device(name);
}

void KernelThinPool::activate(const std::string& name, const std::string& object_uuid, ThinId id,
                              Sectors size, Access access) {
  remove_unfinished(name);
  create_device(name, dm_uuid(table_.uuid, object_uuid), size, "thin",
                fmt::format("/dev/mapper/{} {}", table_.name, id.value), access);
}

Effect KernelThinPool::deactivate(const std::string& name) {
  const std::optional<DmInfo> info = dm_info(name);
  if (!info || !is_ours(*info)) return Effect::kUnchanged;
  remove_device(name);
  return Effect::kChanged;
}

void KernelThinPool::resume(const std::string& name) {
  resume_device(name);
}

std::vector<ActiveThin> KernelThinPool::active() {
  std::vector<ActiveThin> devices;
  for (const std::string& name : all_dm_names()) {
    const std::optional<DmInfo> info = dm_info(name);
    if (!info || !is_ours(*info) || name == table_.name) continue;
    ActiveThin device;
    device.name = name;
    device.object_uuid = info->uuid.substr(dm_uuid(table_.uuid, "").size());
    device.suspended = info->suspended;
    if (const std::optional<DmTarget> table = dm_table(name); table && table->type == "thin") {
      std::string pool;
      std::istringstream(table->parameters) >> pool >> device.thin_id.value;
      device.size = table->length;
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

std::map<std::uint32_t, std::string> KernelThinPool::active_in_others() {
  const std::optional<DmInfo> pool = dm_info(table_.name);
  if (!pool) throw Error(ErrorKind::kIo, "the thin pool {} is gone from the kernel", table_.name);
  std::map<std::uint32_t, std::string> devices;
  for (const std::string& name : all_dm_names()) {
    const std::optional<DmInfo> info = dm_info(name);
    if (!info || is_ours(*info)) continue;
    const std::optional<DmTarget> line = only_line(name);
    if (!line || line->type != "thin") continue;
    std::string pool_device;
    std::uint32_t thin_id = 0;
    std::istringstream(line->parameters) >> pool_device >> thin_id;
    // Of a pool that has failed, the kernel tells no device ("Fail").
    if (pool_device.find(':') != std::string::npos && parse_device(pool_device) == pool->device)
      devices.emplace(thin_id, name);
  }
  return devices;
}

bool KernelThinPool::name_in_use(const std::string& name) {
  return dm_info(name).has_value();
}

std::optional<Sectors> KernelThinPool::mapped(const std::string& name) {
  if (!device_number(name)) return std::nullopt;  // not ours
  const std::optional<DmTarget> status = dm_status(name);
  if (!status || status->type != "thin") return std::nullopt;
  // "<mapped sectors> <highest mapped sector>", or "Fail".
  Sectors mapped;
  std::istringstream in(status->parameters);
  in >> mapped.count;
  return in ? std::optional(mapped) : std::nullopt;
}

std::optional<dev_t> KernelThinPool::device_number(const std::string& name) {
  const std::optional<DmInfo> info = dm_info(name);
  return info && info->has_table && is_ours(*info) ? std::optional(info->device) : std::nullopt;
}

}  // namespace convoy
