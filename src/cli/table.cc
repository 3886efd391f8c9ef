#include "cli/table.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

namespace convoy {
namespace {

std::string printable(const std::string& text) {
  std::string result;
  std::ranges::copy_if(text, std::back_inserter(result),
                       [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
  return result;
}

}  // namespace

std::string format_table(const TableRow& heading, const std::vector<TableRow>& rows) {
  std::vector<TableRow> lines = {heading};
  lines.insert(lines.end(), rows.begin(), rows.end());
  std::vector<std::size_t> widths(heading.size());
  for (TableRow& line : lines) {
    for (std::size_t i = 0; i < widths.size(); ++i) {
      line[i] = printable(line[i]);
      widths[i] = std::max(widths[i], line[i].size());
    }
  }
  std::string text;
  for (const TableRow& line : lines) {
    std::string row;
    for (std::size_t i = 0; i < widths.size(); ++i)
      row += fmt::format("{:<{}}  ", line[i], widths[i]);
    text += row.substr(0, row.find_last_not_of(' ') + 1) + '\n';
  }
  return text;
}

}  // namespace convoy
