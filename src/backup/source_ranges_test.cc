#include "backup/source_ranges.h"

#include "backup/backup_testing.h"

namespace convoy {

void PrintTo(const ChunkRange& range, std::ostream* out) {
  *out << range.first << "-" << range.end << (range.kind == SourceKind::kRead ? " read" : " zero");
}

namespace {

using testing::ElementsAre;
using testing::IsEmpty;
constexpr auto kRead = SourceKind::kRead;
constexpr auto kZero = SourceKind::kZero;

// A volume of ten chunks of 4 KiB and one of 512 bytes.
const TreeShape kShape(10 * 4096 + 512, 4096);

std::vector<ChunkRange> chunks_of(const std::vector<SourceRange>& ranges) {
  return ChunkRanges(ranges, kShape).all();
}

TEST(ChunkRanges, ReadEveryChunkThatARangeTouches) {
  EXPECT_THAT(chunks_of({{{0, 4096}, kRead}}), ElementsAre(ChunkRange{0, 1, kRead}));
  EXPECT_THAT(chunks_of({{{4095, 4097}, kRead}}), ElementsAre(ChunkRange{0, 2, kRead}));
  EXPECT_THAT(chunks_of({{{40960, 41472}, kRead}}), ElementsAre(ChunkRange{10, 11, kRead}));
  EXPECT_THAT(chunks_of({}), IsEmpty());
}

TEST(ChunkRanges, ReadWhatIsOnlyPartlyZero) {
  EXPECT_THAT(chunks_of({{{0, 8192}, kZero}}), ElementsAre(ChunkRange{0, 2, kZero}));
  EXPECT_THAT(chunks_of({{{1, 8191}, kZero}}), ElementsAre(ChunkRange{0, 2, kRead}));
  EXPECT_THAT(chunks_of({{{512, 1024}, kZero}}), ElementsAre(ChunkRange{0, 1, kRead}));
  EXPECT_THAT(chunks_of({{{0, 512}, kZero}}), ElementsAre(ChunkRange{0, 1, kRead}));
  EXPECT_THAT(
      chunks_of({{{512, 3 * 4096 + 512}, kZero}}),
      ElementsAre(ChunkRange{0, 1, kRead}, ChunkRange{1, 3, kZero}, ChunkRange{3, 4, kRead}));
}

TEST(ChunkRanges, TakeTheVolumesEndForTheEndOfItsLastChunk) {
  EXPECT_THAT(chunks_of({{{0, 41472}, kZero}}), ElementsAre(ChunkRange{0, 11, kZero}));
  EXPECT_THAT(chunks_of({{{0, 41471}, kZero}}),
              ElementsAre(ChunkRange{0, 10, kZero}, ChunkRange{10, 11, kRead}));
}

TEST(ChunkRanges, MergeWhatMeets) {
  EXPECT_THAT(chunks_of({{{0, 100}, kRead}, {{200, 300}, kRead}, {{5000, 5001}, kRead}}),
              ElementsAre(ChunkRange{0, 2, kRead}));
  EXPECT_THAT(
      chunks_of({{{0, 4096}, kRead}, {{4096, 8192}, kZero}, {{8192, 8193}, kRead}}),
      ElementsAre(ChunkRange{0, 1, kRead}, ChunkRange{1, 2, kZero}, ChunkRange{2, 3, kRead}));
  EXPECT_THAT(
      chunks_of({{{0, 5000}, kZero}, {{5000, 8192}, kRead}, {{8192, 12288}, kZero}}),
      ElementsAre(ChunkRange{0, 1, kZero}, ChunkRange{1, 2, kRead}, ChunkRange{2, 3, kZero}));
}

TEST(ChunkRanges, IncludeAChunkOnce) {
  ChunkRanges ranges(std::vector<SourceRange>{{{4096, 8192}, kRead}, {{20480, 24576}, kZero}},
                     kShape);
  for (const std::uint64_t chunk : {1U, 5U, 3U, 3U, 0U, 10U}) ranges.include(chunk);
  EXPECT_THAT(ranges.all(),
              ElementsAre(ChunkRange{0, 1, kRead}, ChunkRange{1, 2, kRead}, ChunkRange{3, 4, kRead},
                          ChunkRange{5, 6, kZero}, ChunkRange{10, 11, kRead}));
  EXPECT_EQ(ranges.bytes_to_read(kShape), 3 * 4096U + 512);
}

TEST(ChunkRanges, AreFoundByPlace) {
  const ChunkRanges ranges(
      std::vector<SourceRange>{{{4096, 12288}, kRead}, {{20480, 36864}, kZero}}, kShape);
  EXPECT_EQ(ranges.overlapping(0, 1).size(), 0U);
  EXPECT_EQ(ranges.overlapping(0, 2).size(), 1U);
  EXPECT_EQ(ranges.overlapping(2, 6).size(), 2U);
  EXPECT_EQ(ranges.overlapping(3, 5).size(), 0U);
  EXPECT_EQ(ranges.overlapping(9, 100).size(), 0U);
  EXPECT_TRUE(ranges.zero(5, 9));
  EXPECT_TRUE(ranges.zero(6, 7));
  EXPECT_FALSE(ranges.zero(4, 9));
  EXPECT_FALSE(ranges.zero(5, 10));
  EXPECT_FALSE(ranges.zero(1, 2));
}

TEST(ChunkRanges, RefuseWhatIsOutOfOrderOrOutside) {
  for (const std::vector<SourceRange>& ranges : {std::vector<SourceRange>{{{0, 0}, kRead}},
                                                 {{{512, 0}, kRead}},
                                                 {{{0, 41473}, kRead}},
                                                 {{{0, 1024}, kRead}, {{512, 2048}, kRead}},
                                                 {{{4096, 8192}, kRead}, {{0, 512}, kZero}}}) {
    EXPECT_EQ(error_of([&] { chunks_of(ranges); }).kind(), ErrorKind::kInvalidArgument);
  }
}

}  // namespace
}  // namespace convoy
