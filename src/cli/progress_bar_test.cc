#include "cli/progress_bar.h"

#include <gtest/gtest.h>

#include "base/units.h"

namespace convoy {
namespace {

using std::chrono::seconds;

TEST(ProgressLine, ShowsBarBytesRateAndTimeLeft) {
  EXPECT_EQ(progress_line(512 * kMiB, 2 * kGiB, seconds(4), 79),
            "[######....................]  25%  512.0 MiB of 2.0 GiB  128.0 MiB/s  0:12 left");
}

TEST(ProgressLine, FitsANarrowTerminal) {
  EXPECT_EQ(progress_line(kMiB, 2 * kMiB, seconds(1), 20), " 50%  1.0 MiB of 2.0");
  EXPECT_EQ(progress_line(kMiB, 2 * kMiB, seconds(1), 0), "");
}

TEST(ProgressLine, TakesTheEnds) {
  EXPECT_TRUE(
      progress_line(0, kGiB, seconds(0), 200).ends_with("0%  0 B of 1.0 GiB  0 B/s  --:-- left"));
  EXPECT_TRUE(progress_line(2 * kGiB, kGiB, seconds(1), 200)
                  .ends_with("100%  1.0 GiB of 1.0 GiB  1.0 GiB/s  0:00 left"));
}

}  // namespace
}  // namespace convoy
