#include "daemon/creations.h"

#include "backup/destination.h"
#include "base/error.h"
#include "base/size.h"
#include "base/uuid.h"
#include "daemon/request_fields.h"
#include "daemon/views.h"

namespace convoy {
namespace {

// Whether what is under way can't be what is asked for, or hardly: a volume that is filled from a
// backup, where no backup is asked for, but a size. What is left out else is known when it is done.
bool contradicts(const Creations::Request& present, const Creations::Request& asked) {
  const bool is_other_kind = !present.backup.url.empty() && asked.backup.url.empty();
  const auto differ = [&](const auto& is, const auto& wanted) {
    return wanted && (is ? *is != *wanted : is_other_kind);
  };
  const auto backup_of = [](const Creations::Request& request) {
    return request.backup.url.empty() ? std::nullopt
                                      : std::optional(BackupUrl::parse(request.backup.url).backup);
  };
  return differ(present.volume.size, asked.volume.size) ||
         differ(present.volume.filesystem, asked.volume.filesystem) ||
         differ(present.volume.mkfs_options, asked.volume.mkfs_options) ||
         differ(present.volume.mount_options, asked.volume.mount_options) ||
         (backup_of(asked) && backup_of(present) != backup_of(asked));
}

[[noreturn]] void refuse(const VolumeRow& volume, const char* what, const std::string& present,
                         const std::string& asked) {
  throw Error(ErrorKind::kAlreadyExists, "volume '{}' exists already, and its {} is '{}', not '{}'",
              volume.name, what, present, asked);
}

void check_agrees(const VolumeRow& volume, const Creations::Request& request) {
  const NewVolume& asked = request.volume;
  if (asked.size && *asked.size != volume.size)
    refuse(volume, "size", std::to_string(volume.size), std::to_string(*asked.size));
  if (asked.filesystem && *asked.filesystem != volume.filesystem)
    refuse(volume, "file system", volume.filesystem, *asked.filesystem);
  if (asked.mkfs_options && *asked.mkfs_options != volume.mkfs_options)
    refuse(volume, "list of mkfs options", volume.mkfs_options, *asked.mkfs_options);
  if (asked.mount_options && *asked.mount_options != volume.mount_options)
    refuse(volume, "list of mount options", volume.mount_options, *asked.mount_options);
  if (!request.backup.url.empty()) {
    const Uuid backup = BackupUrl::parse(request.backup.url).backup;
    if (volume.backup != backup)
      refuse(volume, "backup", volume.backup ? volume.backup->to_string() : "none",
             backup.to_string());
  }
}

}  // namespace

std::optional<VolumeView> find_by_name(Volumes& volumes, const std::string& name) {
  try {
    VolumeView view = volumes.inspect(name);
    if (view.volume.name == name) return view;
  } catch (const Error& error) {
    const bool no_such_volume =
        error.kind() == ErrorKind::kNotFound || error.kind() == ErrorKind::kInvalidArgument;
    if (!no_such_volume) throw;
  }
  return std::nullopt;
}

void Creations::create(const Request& request) {
  while (true) {
    const auto [job, is_anothers] = start_or_join(request);
    if (!job) return;
    try {
      job->result();
      if (!is_anothers) return;
      // What came of it is compared with what this request says.
    } catch (const Error& error) {
      // Whoever began it did not want it after all; this request is still to be met.
      if (!is_anothers || error.kind() != ErrorKind::kCancelled) throw;
    }
  }
}

Creations::Joined Creations::start_or_join(const Request& request) {
  const std::string& name = request.volume.name;
  std::unique_lock lock(lock_);
  settle(lock, name);
  if (const auto found = running_.find(name); found != running_.end()) {
    if (contradicts(found->second.request, request))
      throw Error(ErrorKind::kBusy, "volume '{}' is being created with other options", name);
    return {found->second.job, true};
  }
  if (const auto present = find_by_name(volumes_, name)) {
    check_agrees(present->volume, request);
    return {};
  }
  return {start_locked(request)};
}

std::shared_ptr<Job> Creations::start(Request request) {
  if (request.volume.name.empty()) request.volume.name = "volume-" + random_hex(16);
  const std::string& name = request.volume.name;
  std::unique_lock lock(lock_);
  settle(lock, name);
  if (running_.contains(name))
    throw Error(ErrorKind::kBusy, "volume '{}' is being created already", name);
  return start_locked(request);
}

std::shared_ptr<Job> Creations::start_locked(const Request& request) {
  const std::string& name = request.volume.name;
  const auto work = [this, request](Job& job) {
    if (request.backup.url.empty())
      return to_text(volume_view(volumes_.create(request.volume, job.stop_token())));
    const Backups::Restored restored =
        backups_.restore(request.volume, request.backup, request.on_damage, job);
    nlohmann::ordered_json result = volume_view(restored.volume);
    for (const auto& [range, reference, reason] : restored.lost)
      result["Lost"].push_back(fmt::format("bytes {} to {}: {}", range.begin, range.end, reason));
    return to_text(result);
  };
  const std::shared_ptr<Job> job =
      jobs_.start(request.backup.url.empty() ? "create" : "restore", name, work);
  running_[name] = {request, job};
  return job;
}

void Creations::settle(std::unique_lock<std::mutex>& lock, const std::string& name) {
  while (true) {
    std::erase_if(running_, [](const auto& entry) { return entry.second.job->wait({}); });
    const auto found = running_.find(name);
    if (found == running_.end()) return;
    const std::shared_ptr<Job> job = found->second.job;
    if (!job->stop_token().stop_requested()) return;
    lock.unlock();
    job->wait(std::chrono::seconds(1));
    lock.lock();
  }
}

std::optional<std::string> Creations::progress(const std::string& name) {
  const std::lock_guard lock(lock_);
  const auto found = running_.find(name);
  if (found == running_.end() || found->second.job->wait({})) return std::nullopt;
  const JobProgress progress = found->second.job->progress();
  if (progress.bytes_total == 0) return "is being created";
  return fmt::format("is being restored: {} % of {}",
                     progress.bytes_done * 100 / progress.bytes_total,
                     format_size(progress.bytes_total));
}

}  // namespace convoy
