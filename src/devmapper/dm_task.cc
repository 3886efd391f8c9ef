#include "devmapper/dm_task.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

std::mutex& library_lock() {
  static std::mutex lock;
  return lock;
}

bool changes_nodes(int type) {
  return type == DM_DEVICE_CREATE || type == DM_DEVICE_RESUME || type == DM_DEVICE_REMOVE ||
         type == DM_DEVICE_RENAME;
}

void check(int ok, const char* what) {
  if (ok == 0) throw Error(ErrorKind::kInternal, "libdevmapper refused {}", what);
}

// libdevmapper reports each failed ioctl; we report it too, with what was attempted, so its own
// words are for --debug.
// NOLINTNEXTLINE(cert-dcl50-cpp): its callback has this form
__attribute__((format(printf, 5, 6))) void log_message(int, const char*, int, int,
                                                       const char* format, ...) {
  std::array<char, 512> line;
  va_list arguments;
  va_start(arguments, format);
  static_cast<void>(std::vsnprintf(line.data(), line.size(), format, arguments));
  va_end(arguments);
  spdlog::debug("libdevmapper: {}", line.data());
}

UniqueFd open_control() {
  UniqueFd control = open_dm_control();
  if (!control) {
    // Where nobody has made the node, libdevmapper does.
    DmTask(DM_DEVICE_VERSION, "").try_run();
    control = open_dm_control();
  }
  if (!control)
    throw Error(ErrorKind::kUnsupported, "this kernel has no device mapper, or we may not use it");
  return control;
}

// The only line of its table, as libdevmapper reads it.
std::optional<DmTarget> only_target(const std::string& name) {
  DmTask task(DM_DEVICE_TABLE, name);
  const int error = task.try_run();
  if (error == ENXIO) return std::nullopt;
  if (error != 0) throw system_error(error, fmt::format("can't read the table of {}", name));
  std::uint64_t start = 0, length = 0;
  char* target_type = nullptr;
  char* parameters = nullptr;
  void* const next =
      dm_get_next_target(task.get(), nullptr, &start, &length, &target_type, &parameters);
  if (target_type == nullptr) return std::nullopt;
  if (next != nullptr)
    throw Error(ErrorKind::kCorrupt, "the dm device {} has a table of several lines", name);
  return DmTarget{{length}, target_type, parameters == nullptr ? "" : parameters};
}

// The only line of what DM_TABLE_STATUS has answered; one that is too long for us counts as
// several.
std::optional<DmTarget> only_target(const RawIoctl& answer, const std::string& name) {
  if (answer.header.target_count == 0) return std::nullopt;
  if (answer.header.target_count > 1 || (answer.header.flags & DM_BUFFER_FULL_FLAG) != 0)
    throw Error(ErrorKind::kCorrupt, "the dm device {} has a table of several lines", name);
  dm_target_spec spec;
  std::memcpy(&spec, answer.payload.data(), sizeof spec);
  return DmTarget{{spec.length}, spec.target_type, answer.payload.data() + sizeof spec};
}

// The library's wait works off its list of nodes to make, for all threads, so it is called under
// the lock; and may take as long as udev does, so it is called again and again. Whoever needs a
// node that udev has not made by the end finds that out by itself.
void wait_for_udev(std::uint32_t cookie, const std::string& device) {
  const auto give_up = std::chrono::steady_clock::now() + kUdevTimeout;
  for (int ready = 0;;) {
    {
      const std::lock_guard lock(library_lock());
      if (dm_udev_wait_immediate(cookie, &ready) == 0 || ready != 0) return;
      if (std::chrono::steady_clock::now() > give_up) {
        spdlog::error("udev does not end its work on {} (systemctl status systemd-udevd)", device);
        dm_udev_complete(cookie);
      }
    }
    std::this_thread::sleep_for(kUdevPollStep);
  }
}

}  // namespace

DmTask::DmTask(int type, const std::string& name)
    : task_(dm_task_create(type)), type_(type), name_(name) {
  if (!task_)
    throw Error(ErrorKind::kUnsupported, "this kernel has no device mapper, or we may not use it");
  if (!name.empty()) check(dm_task_set_name(task_.get(), name.c_str()), "the device name");
}

void DmTask::set_uuid(const std::string& uuid) {
  check(dm_task_set_uuid(task_.get(), uuid.c_str()), "the UUID");
}

void DmTask::set_new_uuid(const std::string& uuid) {
  check(dm_task_set_newuuid(task_.get(), uuid.c_str()), "the new UUID");
}

void DmTask::set_read_only() {
  check(dm_task_set_ro(task_.get()), "read-only");
}

void DmTask::add_target(Sectors length, const std::string& type, const std::string& parameters) {
  check(dm_task_add_target(task_.get(), 0, length.count, type.c_str(), parameters.c_str()),
        "the table");
}

int DmTask::try_run() {
  std::uint32_t cookie = 0;
  int error = 0;
  {
    const std::lock_guard lock(library_lock());
    if (changes_nodes(type_)) {
      // Where udev makes the nodes, the library must not: another thread's dm_task_update_nodes
      // would do so before udev, which then finds its place taken. It may remove what udev has
      // left.
      const bool trusts_udev = type_ != DM_DEVICE_REMOVE && dm_udev_get_sync_support() != 0;
      const std::uint16_t flags = trusts_udev ? DM_UDEV_DISABLE_LIBRARY_FALLBACK : 0;
      check(dm_task_set_cookie(task_.get(), &cookie, flags), "a udev cookie");
    }
    if (dm_task_run(task_.get()) == 0) {
      error = dm_task_get_errno(task_.get());
      if (error == 0) error = EIO;  // it failed before it asked the kernel
    }
  }
  if (error == 0 && changes_nodes(type_)) crash_point("dm device");
  if (cookie != 0) wait_for_udev(cookie, name_);
  {
    // Without udev, nodes are made by the library, when it is told that nobody else will.
    const std::lock_guard lock(library_lock());
    dm_task_update_nodes();
  }
  return error;
}

void DmTask::run() {
  const int error = try_run();
  if (error != 0) throw system_error(error, fmt::format("device mapper: {}", name_));
}

std::optional<DmInfo> dm_info(const std::string& name) {
  const UniqueFd control = open_control();
  RawIoctl request = RawIoctl::prepare(to_dm_name(name));
  const int error = request.run(control, DM_DEV_STATUS);
  if (error == ENXIO) return std::nullopt;
  if (error != 0) throw system_error(error, fmt::format("can't examine the dm device {}", name));
  const dm_ioctl& answer = request.header;
  return DmInfo{request.device(), static_cast<const char*>(answer.uuid),
                (answer.flags & DM_SUSPEND_FLAG) != 0,
                (answer.flags & DM_ACTIVE_PRESENT_FLAG) != 0};
}

std::optional<DmTarget> dm_table(const std::string& name) {
  return only_target(name);
}

std::optional<DmTarget> dm_status(const std::string& name) {
  const UniqueFd control = open_control();
  RawIoctl request = RawIoctl::prepare(to_dm_name(name));
  const int error = request.run(control, DM_TABLE_STATUS);
  if (error == ENXIO) return std::nullopt;
  if (error != 0) throw system_error(error, fmt::format("can't read the status of {}", name));
  return only_target(request, name);
}

void settle_dm_nodes() {
  if (dm_udev_get_sync_support() == 0) DmTask(DM_DEVICE_MKNODES, "").run();
}

DmName to_dm_name(const std::string& name) {
  DmName result = {};
  if (name.size() >= result.size())
    throw Error(ErrorKind::kInvalidArgument, "'{}' is too long for a dm device's name", name);
  name.copy(result.data(), name.size());
  return result;
}

std::vector<std::string> all_dm_names() {
  DmTask task(DM_DEVICE_LIST, "");
  task.run();
  std::vector<std::string> names;
  const auto* entry = reinterpret_cast<const char*>(dm_task_get_names(task.get()));
  while (entry != nullptr) {
    const auto* const device = reinterpret_cast<const dm_names*>(entry);
    if (device->dev == 0) break;  // the list of none is one entry without a device
    names.emplace_back(device->name);
    entry = device->next == 0 ? nullptr : entry + device->next;
  }
  return names;
}

void redirect_dm_log() {
  dm_log_with_errno_init(&log_message);
}

}  // namespace convoy
