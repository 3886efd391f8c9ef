// Reading the store's JSON objects: every field is checked, and an error says which one is wrong.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/time.h"
#include "base/uuid.h"
#include "objectstore/object_store.h"

namespace convoy {

// The fields of one JSON object. Fields that nobody asks for don't matter: a later program may have
// added them. What is asked for and missing, of another type or out of bounds throws kCorrupt, with
// the field's path.
class JsonFields {
 public:
  // `object` must outlive this. `path` leads to it in messages, such as "volume."; empty at the
  // top.
  explicit JsonFields(const nlohmann::json& object, std::string path = "");

  JsonFields object(const std::string& name) const;
  bool is_null(const std::string& name) const;
  bool has(const std::string& name) const;
  std::uint64_t number(const std::string& name, std::uint64_t max) const;
  Uuid uuid(const std::string& name) const;
  Timestamp time(const std::string& name) const;
  // Any text of at most `max_length` bytes.
  std::string text(const std::string& name, std::size_t max_length) const;
  // A name as is_valid_name takes it.
  std::string name(const std::string& name) const;
  // An array of ranges in ascending order, each an array of a first and a last number, both of 32
  // bits.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges(const std::string& name) const;
  // Throws kUnsupported if the field "version" is a number other than the one version there is.
  void check_version() const;

  // The field itself, for forms of its own.
  const nlohmann::json& field(const std::string& name) const;
  [[noreturn]] void refuse(const std::string& name, std::string_view why) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
};

// The JSON of an object. Throws kNotFound if there is none, kCorrupt if it is no JSON object or
// larger than kMaxStoreJson. Errors name the key.
nlohmann::json get_json(ObjectStore& objects, const std::string& key);
nlohmann::json parse_json(std::span<const std::byte> bytes);

// The text of a JSON object with a last field "checksum": the SHA-256 of all that stands before
// that field.
std::string dump_with_checksum(const nlohmann::json& object);
// Throws kCorrupt unless `text` ends in a right checksum.
void check_checksum(std::string_view text);

// As get_json, of an object that was just listed. Some stores say for a moment of one that is being
// replaced that it is not there (docs/s3.md): they are asked again.
nlohmann::json get_listed_json(ObjectStore& objects, const std::string& key);

// Puts the text of a JSON object. Throws kUnsupported if it is larger than readers take.
void put_json(ObjectStore& objects, const std::string& key, std::string_view text);

}  // namespace convoy
