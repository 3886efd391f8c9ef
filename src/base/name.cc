#include "base/name.h"

#include <algorithm>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// Not isalnum: that follows the locale.
bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

}  // namespace

bool is_valid_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameLength && is_letter_or_digit(name[0]) &&
         std::ranges::all_of(name, [](char c) {
           return is_letter_or_digit(c) || c == '_' || c == '.' || c == '-';
         });
}

void check_name(std::string_view what, std::string_view name) {
  if (is_valid_name(name)) return;
  throw Error(ErrorKind::kInvalidArgument,
              "'{}' can't be the name of a {}: use 1 to {} letters, digits, '_', '.' or '-', "
              "starting with a letter or digit",
              name, what, kMaxNameLength);
}

}  // namespace convoy
