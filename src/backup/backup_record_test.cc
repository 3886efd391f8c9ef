#include "backup/backup_record.h"

#include <random>

#include <gtest/gtest.h>

#include "backup/zstd_text.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

BackupRecord record_of(std::uint64_t size, std::uint32_t packs) {
  std::mt19937_64 dice(1);
  const Uuid backup = Uuid::generate();
  const Uuid lineage = Uuid::generate();
  BackupRecord record{
      .info = {.uuid = backup,
               .created = now(),
               .source = {.lineage = lineage,
                          .driver = "devicemapper",
                          .volume = {.uuid = lineage,
                                     .name = "db",
                                     .created = now(),
                                     .filesystem = "ext4"},
                          .snapshot = {.uuid = Uuid::generate(), .name = "s", .created = now()},
                          .size = size},
               .parent = std::nullopt,
               .statistics = {}},
      .chunk_size = kDefaultChunkSize,
      .root = std::nullopt,
      .packs = {}};
  // As packs are: closed when the next frame would not fit, in any order of what they hold.
  for (std::uint32_t number = 0; number < packs; ++number) {
    record.packs[{PackKind::kData, backup, number}] = {
        .size = kPackTargetSize + dice() % kDefaultChunkSize, .references = 900 + dice() % 124};
  }
  return record;
}

// So an unchanged volume costs little, however large it is.
TEST(BackupRecord, OfManyPacksIsSmall) {
  const std::uint64_t size = 100 * kGiB;
  const BackupRecord record = record_of(size, size / kPackTargetSize);
  const std::string text = encode_record(record);
  const auto stored = compress_text(text);
  EXPECT_LT(stored.size(), 36 * kKiB);
  const BackupRecord read = parse_record(as_bytes(decompress_text(stored, kMaxStoreJson)));
  EXPECT_EQ(read.packs, record.packs);
}

// Numbers that are missing, since nothing of those packs is needed any more.
TEST(BackupRecord, KeepsGapsInTheNumbersOfPacks) {
  BackupRecord record = record_of(kGiB, 50);
  std::erase_if(record.packs, [](const auto& pack) { return pack.first.number % 7 < 3; });
  record.packs[{PackKind::kTree, record.info.uuid, 4'000'000'000U}] = {.size = 100,
                                                                       .references = 1};
  EXPECT_EQ(parse_record(as_bytes(encode_record(record))).packs, record.packs);
}

TEST(ZstdText, GivesBackWhatWasPutInAndTakesNothingElse) {
  for (const std::string& text : {std::string(), std::string("x"), std::string(1000000, 'y')}) {
    const auto bytes = compress_text(text);
    EXPECT_EQ(decompress_text(bytes, 1000000), text);
    if (text.size() > 1) {
      EXPECT_THROW(decompress_text(bytes, text.size() - 1), Error);
    }
    EXPECT_THROW(decompress_text(std::span(bytes).first(bytes.size() - 1), 1000000), Error);
    auto more = bytes;
    more.push_back(std::byte{1});
    EXPECT_THROW(decompress_text(more, 1000000), Error);
  }
  EXPECT_THROW(decompress_text({}, 100), Error);
  EXPECT_THROW(decompress_text(as_bytes("no zstd frame at all"), 100), Error);
}

}  // namespace
}  // namespace convoy
