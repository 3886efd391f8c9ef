#include "sys/io_ring.h"

#include <filesystem>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "sys/file.h"

namespace convoy {
namespace {

class Ring : public testing::Test {
 protected:
  static constexpr std::size_t kPiece = 512;
  static constexpr std::size_t kPieces = 500;

  Ring() {
    std::string content;
    for (std::size_t i = 0; i < kPieces; ++i) content += std::string(kPiece, letter(i));
    write_all(fd_.get(), as_bytes(content));
  }
  ~Ring() override { std::filesystem::remove(path_); }

  static char letter(std::size_t piece) { return static_cast<char>('a' + piece % 26); }

  std::string path_ = testing::TempDir() + "ring-" + std::to_string(::getpid());
  UniqueFd fd_ = open_file(path_, O_RDWR | O_CREAT | O_TRUNC, 0600);
};

TEST_F(Ring, FillsEveryPieceWhateverItsDepth) {
  for (const unsigned depth : {1U, 2U, 64U}) {
    IoRing ring(depth);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::string> buffers(kPieces, std::string(kPiece, '-'));
      std::vector<RingRead> reads;
      // In reads of 1, 2, 3, ... pieces.
      for (std::size_t begin = 0, length = 1; begin < kPieces;
           begin += length, length = length % 7 + 1) {
        RingRead& read = reads.emplace_back();
        read.offset = begin * kPiece;
        for (std::size_t i = begin; i < std::min(begin + length, kPieces); ++i)
          read.pieces.push_back({buffers[i].data(), kPiece});
      }
      ring.read(fd_.get(), reads);
      for (const RingRead& read : reads) EXPECT_TRUE(read.complete);
      for (std::size_t i = 0; i < kPieces; ++i)
        EXPECT_EQ(buffers[i], std::string(kPiece, letter(i)));
    }
  }
}

TEST_F(Ring, TellsWhatCameShortOrFailed) {
  IoRing ring(4);
  std::string buffer(2 * kPiece, '-');
  std::vector<RingRead> reads(3);
  reads[0] = {0, {{buffer.data(), kPiece}}};
  reads[1] = {(kPieces - 1) * kPiece, {{buffer.data(), 2 * kPiece}}};  // ends in the middle
  reads[2] = {kPieces * kPiece, {{buffer.data(), kPiece}}};            // begins behind the end
  ring.read(fd_.get(), reads);
  EXPECT_TRUE(reads[0].complete);
  EXPECT_FALSE(reads[1].complete);
  EXPECT_FALSE(reads[2].complete);

  ring.read(-1, std::span(reads).first(1));
  EXPECT_FALSE(reads[0].complete);
  ring.read(fd_.get(), {});
}

}  // namespace
}  // namespace convoy
