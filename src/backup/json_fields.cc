#include "backup/json_fields.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/name.h"

namespace convoy {
namespace {

// The checksum of `text`, as the field that follows it and ends the object.
std::string checksum_field_of(std::string_view text) {
  return fmt::format(",\"checksum\":\"{}\"}}\n", to_hex(sha256(as_bytes(text))));
}

}  // namespace

JsonFields::JsonFields(const nlohmann::json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object_.is_object()) throw Error(ErrorKind::kCorrupt, "'{}' is not a JSON object", path_);
}

JsonFields JsonFields::object(const std::string& name) const {
  if (!field(name).is_object()) refuse(name, "is not an object");
  return JsonFields(field(name), path_ + name + '.');
}

bool JsonFields::is_null(const std::string& name) const {
  return field(name).is_null();
}

std::uint64_t JsonFields::number(const std::string& name, std::uint64_t max) const {
  const nlohmann::json& value = field(name);
  if (!value.is_number_unsigned()) refuse(name, "is not a whole number");
  if (value.get<std::uint64_t>() > max) refuse(name, "is too large");
  return value.get<std::uint64_t>();
}

Uuid JsonFields::uuid(const std::string& name) const {
  const nlohmann::json& value = field(name);
  const auto uuid =
      value.is_string() ? Uuid::parse(value.get_ref<const std::string&>()) : std::nullopt;
  if (!uuid) refuse(name, "is not a UUID");
  return *uuid;
}

Timestamp JsonFields::time(const std::string& name) const {
  const nlohmann::json& value = field(name);
  const auto time =
      value.is_string() ? parse_rfc3339(value.get_ref<const std::string&>()) : std::nullopt;
  if (!time) refuse(name, "is not a time");
  return *time;
}

std::string JsonFields::text(const std::string& name, std::size_t max_length) const {
  const nlohmann::json& value = field(name);
  if (!value.is_string()) refuse(name, "is not a text");
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > max_length) refuse(name, "is too long");
  return text;
}

std::string JsonFields::name(const std::string& name) const {
  std::string text = this->text(name, kMaxNameLength);
  if (!is_valid_name(text)) refuse(name, "is not a name");
  return text;
}

std::vector<std::pair<std::uint32_t, std::uint32_t>> JsonFields::ranges(
    const std::string& name) const {
  const nlohmann::json& array = field(name);
  if (!array.is_array()) refuse(name, "is not a list");
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;
  ranges.reserve(array.size());
  for (const nlohmann::json& range : array) {
    if (!range.is_array() || range.size() != 2 || !range[0].is_number_unsigned() ||
        !range[1].is_number_unsigned())
      refuse(name, "has an element that is not a first and a last number");
    const auto first = range[0].get<std::uint64_t>();
    const auto last = range[1].get<std::uint64_t>();
    if (last > UINT32_MAX || first > last || (!ranges.empty() && first <= ranges.back().second))
      refuse(name, "is not ascending");
    ranges.emplace_back(first, last);
  }
  return ranges;
}

void JsonFields::check_version() const {
  constexpr std::uint64_t kVersion = 1;
  const std::uint64_t version = number("version", UINT64_MAX);
  if (version != kVersion) {
    throw Error(ErrorKind::kUnsupported,
                "has version {} of the backup format, and this program knows version {} only",
                version, kVersion);
  }
}

bool JsonFields::has(const std::string& name) const {
  return object_.contains(name);
}

const nlohmann::json& JsonFields::field(const std::string& name) const {
  const auto found = object_.find(name);
  if (found == object_.end()) refuse(name, "is missing");
  return *found;
}

void JsonFields::refuse(const std::string& name, std::string_view why) const {
  throw Error(ErrorKind::kCorrupt, "{}{} {}", path_, name, why);
}

nlohmann::json parse_json(std::span<const std::byte> bytes) {
  using Event = nlohmann::json::parse_event_t;
  std::uint32_t values = 0;
  std::uint32_t fields = 0;
  const auto limit = [&](int depth, Event event, const nlohmann::json&) {
    if (event == Event::key) ++fields;
    if (event == Event::value || event == Event::object_start || event == Event::array_start)
      ++values;
    if (depth > kMaxStoreJsonDepth || fields > kMaxStoreJsonFields || values > kMaxStoreJsonValues)
      throw Error(ErrorKind::kCorrupt, "holds more than a JSON object of a store can");
    return true;
  };
  const std::string_view text = as_text(bytes);
  nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), limit, false);
  if (json.is_discarded() || !json.is_object()) {
    throw Error(ErrorKind::kCorrupt, "is not a JSON object");
  }
  return json;
}

std::string dump_with_checksum(const nlohmann::json& object) {
  std::string text = object.dump();
  text.pop_back();  // the closing brace
  return text + checksum_field_of(text);
}

void check_checksum(std::string_view text) {
  const std::size_t length = std::min(text.size(), checksum_field_of("").size());
  const std::string_view before = text.substr(0, text.size() - length);
  if (text.substr(before.size()) != checksum_field_of(before)) {
    throw Error(ErrorKind::kCorrupt, "its checksum is wrong");
  }
}

nlohmann::json get_json(ObjectStore& objects, const std::string& key) {
  const std::vector<std::byte> bytes = objects.get(key, kMaxStoreJson);
  return with_context(key, [&] { return parse_json(bytes); });
}

nlohmann::json get_listed_json(ObjectStore& objects, const std::string& key) {
  constexpr std::chrono::milliseconds kMoment{200};
  for (int tries_left = 3;; --tries_left) {
    try {
      return get_json(objects, key);
    } catch (const Error& error) {
      const bool may_be_there = objects.time_lag() > std::chrono::milliseconds::zero();
      if (error.kind() != ErrorKind::kNotFound || !may_be_there || tries_left == 0) throw;
    }
    std::this_thread::sleep_for(kMoment);
  }
}

void put_json(ObjectStore& objects, const std::string& key, std::string_view text) {
  if (text.size() > kMaxStoreJson) {
    throw Error(ErrorKind::kUnsupported, "{} would be {} bytes long, where {} are the most", key,
                text.size(), kMaxStoreJson);
  }
  objects.put(key, as_bytes(text));
}

}  // namespace convoy
