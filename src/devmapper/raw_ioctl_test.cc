#include "devmapper/raw_ioctl.h"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

namespace convoy {
namespace {

TEST(RawIoctl, UnderstandsDeviceNumbersAsTheKernelPacksThem) {
  RawIoctl answer = {};
  answer.header.dev = 254U << 8U | 7U;
  EXPECT_EQ(answer.device(), makedev(254, 7));
  // 300 is 0x12c: the upper bits of a minor number stand above the major's.
  answer.header.dev = 0x100U << 12U | 253U << 8U | 0x2cU;
  EXPECT_EQ(answer.device(), makedev(253, 300));
}

}  // namespace
}  // namespace convoy
