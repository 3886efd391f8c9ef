#include "base/size.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/units.h"

namespace convoy {
namespace {

TEST(ParseSize, TakesBytesAndSuffixesOfEitherCase) {
  EXPECT_EQ(parse_size("0"), 0U);
  EXPECT_EQ(parse_size("123456"), 123456U);
  EXPECT_EQ(parse_size("1k"), kKiB);
  EXPECT_EQ(parse_size("3M"), 3 * kMiB);
  EXPECT_EQ(parse_size("100g"), 100 * kGiB);
  EXPECT_EQ(parse_size("2T"), 2 * kTiB);
  EXPECT_EQ(parse_size("20GiB"), 20 * kGiB);
  EXPECT_EQ(parse_size("20GB"), 20 * kGiB);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "G", "-1", "+1", " 1", "1 ", "1.5G", "1GG", "1X", "1Gx", "0x10",
                           "99999999999999999999", "18446744073709551615K", "16777216T"}) {
    EXPECT_THROW(parse_size(text), Error) << text;
  }
}

TEST(ParseSize, TakesTheLargestThatFits) {
  EXPECT_EQ(parse_size("16383P"), 16383 * 1024 * kTiB);
}

TEST(FormatSize, IsForPeople) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(1023), "1023 B");
  EXPECT_EQ(format_size(1536), "1.5 KiB");
  EXPECT_EQ(format_size(20 * kGiB), "20.0 GiB");
}

}  // namespace
}  // namespace convoy
