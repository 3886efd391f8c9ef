// Names, UUIDs, times and errors.
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/name.h"
#include "base/time.h"
#include "base/uuid.h"

namespace convoy {
namespace {

TEST(Name, IsLettersDigitsAndThreeSignsStartingWithALetterOrDigit) {
  for (const std::string& name :
       {std::string("a"), std::string("0"), std::string("my_vol.1-x"), std::string(64, 'x')}) {
    EXPECT_TRUE(is_valid_name(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string("../../evil"), std::string(".hidden"), std::string("-option"),
        std::string("a b"), std::string("a/b"), std::string("\xc3\xa4"), std::string("a\n"),
        std::string("a\0b", 3), std::string(65, 'x')}) {
    EXPECT_FALSE(is_valid_name(name)) << name;
    EXPECT_THROW(check_name("volume", name), Error) << name;
  }
}

TEST(Uuid, IsParsedFromItsOwnText) {
  const Uuid uuid = Uuid::generate();
  EXPECT_EQ(Uuid::parse(uuid.to_string()), uuid);
  EXPECT_EQ(uuid.to_string()[14], '7');
  EXPECT_FALSE(Uuid::parse(""));
  EXPECT_FALSE(Uuid::parse(uuid.to_string() + "0"));
  EXPECT_FALSE(Uuid::parse("01234567-89ab-cdef-0123-456789abcdeg"));
  EXPECT_FALSE(Uuid::parse("01234567089ab-cdef-0123-456789abcdef"));
}

TEST(Uuid, SortsByItsTime) {
  const Uuid first = Uuid::generate();
  while (Uuid::generate().bytes()[5] == first.bytes()[5]) {  // until the millisecond is over
  }
  EXPECT_LT(first, Uuid::generate());
}

TEST(Time, HasTheFormThatUsersKnow) {
  const auto time = parse_rfc3339("2026-11-03T00:13:37.042Z");
  ASSERT_TRUE(time);
  EXPECT_EQ(format_for_user(*time), "Tue Nov 03 00:13:37 +0000 2026");
  EXPECT_EQ(parse_for_user("Tue Nov 03 00:13:37 +0000 2026"),
            std::chrono::floor<std::chrono::seconds>(*time));
  for (const char* const text :
       {"", "Tue Nov 03 00:13:37 +0000", "Mon Nov 03 00:13:37 +0000 2026",
        "Tue Nov 3 00:13:37 +0000 2026", "Tue Nov 03 00:13:37 +0100 2026",
        "Tue Nov 31 00:13:37 +0000 2026", "Tue Nov 03 00:13:37 +0000 2026 "}) {
    EXPECT_FALSE(parse_for_user(text)) << text;
  }
  EXPECT_EQ(format_rfc3339(*time), "2026-11-03T00:13:37.042Z");
}

TEST(Time, IsParsedInOneFormOnly) {
  for (const char* text :
       {"", "2026-11-03", "2026-11-03T00:13:37Z", "2026-13-03T00:13:37.042Z",
        "2026-02-30T00:13:37.042Z", "2026-11-03T00:13:37.042Z ", "2026-11-03T24:13:37.042Z"}) {
    EXPECT_FALSE(parse_rfc3339(text)) << text;
  }
}

TEST(Error, GathersContextAndKeepsItsKind) {
  try {
    with_context("volume db",
                 [] { throw Error(ErrorKind::kBusy, "snapshot {} is being read", "s1"); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "volume db: snapshot s1 is being read");
    EXPECT_EQ(error.kind(), ErrorKind::kBusy);
  }
}

TEST(Error, KindsHaveNamesThatLeadBack) {
  for (int i = 0; i <= static_cast<int>(ErrorKind::kInternal); ++i) {
    const auto kind = static_cast<ErrorKind>(i);
    EXPECT_EQ(error_kind_from_string(to_string(kind)), kind);
  }
}

TEST(Error, OfASystemCallKeepsNoSpaceAndBusyApart) {
  EXPECT_EQ(system_error(ENOSPC, "write").kind(), ErrorKind::kNoSpace);
  EXPECT_EQ(system_error(EBUSY, "remove").kind(), ErrorKind::kBusy);
  EXPECT_EQ(system_error(EIO, "read").message(), "read: Input/output error");
}

TEST(Digest, IsSha256) {
  EXPECT_EQ(to_hex(sha256(as_bytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(AllZero, SeesTheFirstAndTheLastByte) {
  std::array<std::byte, 100> bytes = {};
  EXPECT_TRUE(all_zero(bytes));
  EXPECT_TRUE(all_zero({}));
  bytes[99] = std::byte{1};
  EXPECT_FALSE(all_zero(bytes));
  bytes[99] = std::byte{0};
  bytes[0] = std::byte{1};
  EXPECT_FALSE(all_zero(bytes));
}

TEST(Time, IsReadAsItIsWrittenWhateverTheYear) {
  for (const char* const text : {"1970-01-01T00:00:00.000Z", "2026-11-26T07:08:07.259Z",
                                 "2262-04-12T00:00:00.001Z", "9999-12-31T23:59:59.999Z"}) {
    const auto time = parse_rfc3339(text);
    ASSERT_TRUE(time) << text;
    EXPECT_EQ(format_rfc3339(*time), text);
    EXPECT_EQ(parse_for_user(format_for_user(*time)),
              std::chrono::floor<std::chrono::seconds>(*time));
  }
}

}  // namespace
}  // namespace convoy
