#include "objectstore/object_store.h"

#include <algorithm>

#include "base/error.h"

namespace convoy {
namespace {

// Directories take 255 bytes per name, S3 1024 per key; the destination's own path comes before
// ours.
constexpr std::size_t kMaxComponentLength = 200;
constexpr std::size_t kMaxKeyLength = 1000;

bool is_component_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-' || c == '!';
}

}  // namespace

void ObjectStore::remove_all(std::span<const std::string> keys) {
  for (const std::string& key : keys) remove(key);
}

bool is_key_component(std::string_view text) {
  return !text.empty() && text.size() <= kMaxComponentLength && text != "." && text != ".." &&
         std::ranges::all_of(text, is_component_character);
}

bool is_key(std::string_view text) {
  if (text.size() > kMaxKeyLength) return false;
  while (true) {
    const std::size_t slash = text.find('/');
    if (!is_key_component(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

void check_key(std::string_view key) {
  if (!is_key(key)) throw Error(ErrorKind::kInvalidArgument, "'{}' can't be an object's key", key);
}

void check_prefix(std::string_view prefix) {
  if (prefix.empty() || (prefix.ends_with('/') && is_key(prefix.substr(0, prefix.size() - 1)))) {
    return;
  }
  throw Error(ErrorKind::kInvalidArgument, "'{}' can't be a directory of objects", prefix);
}

}  // namespace convoy
