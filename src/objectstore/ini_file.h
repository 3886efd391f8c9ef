// Files of sections with keys and values: AWS's credentials and config, and our own s3.conf.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace convoy {

// Sections by name, each with its values by key. "[a]" begins a section, "key = value" stands in
// one, lines that begin with '#' or ';' mean nothing. Indented lines under a key without a value
// are left out: AWS's nested settings.
using IniFile = std::map<std::string, std::map<std::string, std::string>>;

// Throws kInvalidArgument, naming the line, for anything else.
IniFile parse_ini(std::string_view text);

// Empty if there is no such file. Throws kInvalidArgument, naming the file, or kIo.
IniFile read_ini(const std::filesystem::path& file);

}  // namespace convoy
