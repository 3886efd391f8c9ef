#include "volumes/convoy_root.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/crash_point.h"
#include "base/error.h"
#include "base/limits.h"
#include "sys/file.h"

namespace convoy {
namespace {

using nlohmann::json;

constexpr std::string_view kVolumePrefix = "devicemapper_volume_";
constexpr std::string_view kVolumeSuffix = ".json";
constexpr const char* kTakenOver = ".taken-over";

std::filesystem::path driver_root(const std::filesystem::path& root) {
  return root / "devicemapper";
}

std::filesystem::path pool_file(const std::filesystem::path& root) {
  return driver_root(root) / "devicemapper.cfg";
}

std::vector<std::filesystem::path> volume_files(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(driver_root(root))) {
    const std::string name = entry.path().filename();
    if (name.starts_with(kVolumePrefix) && name.ends_with(kVolumeSuffix))
      files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

json read_object(const std::filesystem::path& file) {
  const std::string text = read_text_file(file);
  json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (object.is_object()) return object;
  throw Error(ErrorKind::kInvalidArgument, "{}", text.empty() ? "is empty" : "is no JSON object");
}

// Empty if there is none.
std::string text_in(const json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end() || found->is_null()) return "";
  if (!found->is_string())
    throw Error(ErrorKind::kInvalidArgument, "the field {} is no text", field);
  return found->get<std::string>();
}

bool flag_in(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

// A number, or a number as text.
std::uint64_t number_in(const json& object, const char* field, std::uint64_t max) {
  const auto found = object.find(field);
  std::uint64_t number = 0;
  bool valid = false;
  if (found != object.end() && found->is_number_unsigned()) {
    number = found->get<std::uint64_t>();
    valid = true;
  } else if (found != object.end() && found->is_string()) {
    const std::string text = found->get<std::string>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    valid = error == std::errc{} && end == text.data() + text.size();
  }
  if (!valid || number > max)
    throw Error(ErrorKind::kInvalidArgument, "the field {} is no number up to {}", field, max);
  return number;
}

std::uint32_t thin_id_in(const json& object, const char* field) {
  return static_cast<std::uint32_t>(number_in(object, field, kMaxThinId));
}

Timestamp time_in(const json& object, Timestamp otherwise) {
  const auto found = object.find("CreatedTime");
  if (found == object.end() || !found->is_string()) return otherwise;
  return parse_convoy_time(found->get<std::string>()).value_or(otherwise);
}

Timestamp last_change(const std::filesystem::path& file) {
  return std::chrono::time_point_cast<std::chrono::milliseconds>(
      std::chrono::file_clock::to_sys(std::filesystem::last_write_time(file)));
}

ConvoyPool parse_pool(const json& object) {
  constexpr std::uint64_t kAny = std::numeric_limits<std::int64_t>::max();
  ConvoyPool pool;
  pool.name = std::filesystem::path(text_in(object, "ThinpoolDevice")).filename();
  pool.data_device = text_in(object, "DataDevice");
  pool.data_size = number_in(object, "ThinpoolSize", kAny);
  pool.metadata_device = text_in(object, "MetadataDevice");
  pool.block_size = {number_in(object, "ThinpoolBlockSize", kMaxPoolBlock.count)};
  if (pool.block_size < kMinPoolBlock || pool.block_size.count % kMinPoolBlock.count != 0) {
    throw Error(ErrorKind::kInvalidArgument, "a pool can't have blocks of {} sectors",
                pool.block_size.count);
  }
  pool.default_size = number_in(object, "DefaultVolumeSize", kMaxVolumeSize);
  pool.default_filesystem = text_in(object, "Filesystem");
  pool.last_thin_id = thin_id_in(object, "LastDevID");
  return pool;
}

// What can't be read of the snapshots is told to `left_out`.
ConvoyVolume parse_volume(const json& object, Timestamp changed,
                          std::vector<std::string>& left_out) {
  ConvoyVolume volume;
  volume.name = text_in(object, "Name");
  volume.thin_id = thin_id_in(object, "DevID");
  volume.size = number_in(object, "Size", kMaxVolumeSize);
  volume.mountpoint = text_in(object, "MountPoint");
  volume.filesystem = text_in(object, "Filesystem");
  volume.created = time_in(object, changed);
  const auto snapshots = object.find("Snapshots");
  if (snapshots == object.end() || !snapshots->is_object()) return volume;
  for (const auto& [name, snapshot] : snapshots->items()) {
    try {
      if (!snapshot.is_object()) throw Error(ErrorKind::kInvalidArgument, "is no JSON object");
      volume.snapshots.push_back({name, thin_id_in(snapshot, "DevID"), time_in(snapshot, changed)});
    } catch (const Error& error) {
      left_out.push_back(
          fmt::format("snapshot '{}' of volume '{}': {}", name, volume.name, error.message()));
    }
  }
  return volume;
}

std::filesystem::path settings_file(const std::filesystem::path& root) {
  return root / "convoy.cfg";
}

// What users would miss without a word.
void add_lost_settings(const std::filesystem::path& root, std::vector<std::string>& sentences) {
  constexpr std::string_view kDefaultTimeout = "2m0s";  // as ours
  if (!std::filesystem::exists(settings_file(root))) return;
  const json object = read_object(settings_file(root));
  for (const json& driver : object.value("DriverList", json::array())) {
    if (driver.is_string() && driver != "devicemapper")
      sentences.push_back(fmt::format("volumes of the driver '{}', which is none of ours",
                                      driver.get<std::string>()));
  }
  const std::string timeout = text_in(object, "CmdTimeout");
  if (!timeout.empty() && timeout != kDefaultTimeout)
    sentences.push_back(fmt::format("the CmdTimeout of {}: give it as --cmd-timeout", timeout));
}

void rename_file(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return;
  const std::string target = file.native() + kTakenOver;
  if (std::filesystem::exists(target)) {
    throw Error(ErrorKind::kAlreadyExists,
                "{} was taken over, but can't be renamed, since there is a {}; move that away",
                file.native(), target);
  }
  if (::rename(file.c_str(), target.c_str()) != 0)
    throw system_error(errno, fmt::format("can't rename {}", file.native()));
  crash_point("file renamed");
}

}  // namespace

bool has_convoy_pool(const std::filesystem::path& root) {
  return std::filesystem::exists(pool_file(root));
}

ConvoyRoot read_convoy_root(const std::filesystem::path& root) {
  ConvoyRoot convoy;
  with_context(pool_file(root).native(),
               [&] { convoy.pool = parse_pool(read_object(pool_file(root))); });
  for (const std::filesystem::path& file : volume_files(root)) {
    try {
      convoy.volumes.push_back(parse_volume(read_object(file), last_change(file), convoy.left_out));
    } catch (const Error& error) {
      convoy.left_out.push_back(fmt::format("{}: {}", file.native(), error.message()));
    }
  }
  with_context(settings_file(root).native(), [&] { add_lost_settings(root, convoy.left_out); });
  return convoy;
}

ConvoySettings read_convoy_settings(const std::filesystem::path& root) {
  const std::filesystem::path file = settings_file(root);
  if (!std::filesystem::exists(file)) return {};
  return with_context(file.native(), [&] {
    const json object = read_object(file);
    return ConvoySettings{flag_in(object, "IgnoreDockerDelete"),
                          flag_in(object, "CreateOnDockerMount"),
                          text_in(object, "MountNamespaceFD")};
  });
}

void rename_convoy_files(const std::filesystem::path& root) {
  for (const std::filesystem::path& file : volume_files(root)) rename_file(file);
  rename_file(settings_file(root));
  fsync_directory(root);
  fsync_directory(driver_root(root));
  rename_file(pool_file(root));
  fsync_directory(driver_root(root));
}

std::optional<Timestamp> parse_convoy_time(const std::string& text) {
  for (const char* form : {"%a %b %d %H:%M:%S %z %Y", "%Y-%m-%dT%H:%M:%S%z"}) {
    std::tm parts = {};
    const char* const end = ::strptime(text.c_str(), form, &parts);
    if (end == nullptr || *end != '\0') continue;
    const long offset = parts.tm_gmtoff;  // timegm sets it to 0
    const std::time_t seconds = ::timegm(&parts) - offset;
    // Go's zero time, of something that was never set, is in the year 1.
    if (seconds < 0) return std::nullopt;
    return Timestamp(std::chrono::seconds(seconds));
  }
  return std::nullopt;
}

}  // namespace convoy
