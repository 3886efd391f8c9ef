#include "objectstore/ini_file.h"

#include "base/error.h"
#include "sys/file.h"

namespace convoy {
namespace {

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

}  // namespace

IniFile parse_ini(std::string_view text) {
  IniFile file;
  std::map<std::string, std::string>* section = nullptr;
  bool is_nested = false;  // what is indented belongs to the key above
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::string_view whole = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), whole.size() + 1));
    const std::string_view line = trimmed(whole);
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[' && line.back() == ']') {
      section = &file[std::string(trimmed(line.substr(1, line.size() - 2)))];
      is_nested = false;
      continue;
    }
    if (is_nested && (whole[0] == ' ' || whole[0] == '\t')) continue;
    const std::size_t equals = line.find('=');
    // The line itself may hold a secret.
    if (section == nullptr || equals == std::string_view::npos || equals == 0)
      throw Error(ErrorKind::kInvalidArgument, "line {} is neither [section] nor key = value",
                  number);
    const std::string_view value = trimmed(line.substr(equals + 1));
    (*section)[std::string(trimmed(line.substr(0, equals)))] = value;
    is_nested = value.empty();
  }
  return file;
}

IniFile read_ini(const std::filesystem::path& file) {
  std::string text;
  try {
    text = read_text_file(file);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return {};
    throw;
  }
  return with_context(file.native(), [&] { return parse_ini(text); });
}

}  // namespace convoy
