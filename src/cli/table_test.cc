#include "cli/table.h"

#include <gtest/gtest.h>

namespace convoy {
namespace {

TEST(TableTest, AlignsColumnsAndEndsLinesWithoutSpaces) {
  EXPECT_EQ(format_table({"A", "LONG", "C"}, {{"1", "2", ""}, {"three", "4", "5"}}),
            "A      LONG  C\n"
            "1      2\n"
            "three  4     5\n");
}

TEST(TableTest, PrintsNoControlCharacters) {
  EXPECT_EQ(format_table({"A"}, {{"x\x1b[31m\ny"}}), "A\nx[31my\n");
}

}  // namespace
}  // namespace convoy
