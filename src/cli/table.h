// Tables for people, where a command can print one in place of JSON.
#pragma once

#include <string>
#include <vector>

namespace convoy {

using TableRow = std::vector<std::string>;

// The lines of a table, each column as wide as its widest cell. All rows have as many cells as the
// heading. Control characters are left out: names in a store may be anybody's.
std::string format_table(const TableRow& heading, const std::vector<TableRow>& rows);

}  // namespace convoy
