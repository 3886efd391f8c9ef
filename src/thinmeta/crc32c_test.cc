#include "thinmeta/crc32c.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace convoy::thinmeta {
namespace {

TEST(Crc32c, IsCastagnolisWithoutTheLastInversion) {
  // The check value of the CRC catalogue is 0xE3069283, RFC 3720's for 32 zeros is 0x8A9136AA.
  EXPECT_EQ(crc32c(as_bytes("123456789")), ~0xE3069283U);
  EXPECT_EQ(crc32c(as_bytes(std::string(32, '\0'))), ~0x8A9136AAU);
  EXPECT_EQ(crc32c({}), ~0U);
}

}  // namespace
}  // namespace convoy::thinmeta
