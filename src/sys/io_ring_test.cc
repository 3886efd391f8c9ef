#include "sys/io_ring.h"

#include <chrono>
#include <deque>
#include <filesystem>
#include <ranges>
#include <string>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>

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
    IoRing ring(fd_.get(), depth);
    for (int round = 0; round < 2; ++round) {
      std::vector<std::string> buffers(kPieces, std::string(kPiece, '-'));
      std::deque<RingRead> reads;
      // In reads of 1, 2, 3, ... pieces.
      for (std::size_t begin = 0, length = 1; begin < kPieces;
           begin += length, length = length % 7 + 1) {
        RingRead& read = reads.emplace_back();
        read.offset = begin * kPiece;
        for (std::size_t i = begin; i < std::min(begin + length, kPieces); ++i)
          read.pieces.push_back({buffers[i].data(), kPiece});
        ring.add(read);
      }
      // Asked for from the middle, then from the end.
      ring.go_on();
      ring.wait_for(reads[reads.size() / 2]);
      for (const RingRead& read : std::views::reverse(reads)) {
        ring.wait_for(read);
        EXPECT_EQ(read.state, RingRead::State::kComplete);
        ring.go_on();
      }
      for (std::size_t i = 0; i < kPieces; ++i)
        EXPECT_EQ(buffers[i], std::string(kPiece, letter(i)));
    }
  }
}

TEST_F(Ring, TellsWhatCameShortOrFailed) {
  const auto state_of = [](int fd, std::uint64_t offset, std::size_t length) {
    IoRing ring(fd, 4);
    std::string buffer(length, '-');
    RingRead read = {offset, {{buffer.data(), length}}};
    ring.add(read);
    ring.wait_for(read);
    return read.state;
  };
  using enum RingRead::State;
  EXPECT_EQ(state_of(fd_.get(), 0, kPiece), kComplete);
  EXPECT_EQ(state_of(fd_.get(), (kPieces - 1) * kPiece, 2 * kPiece), kFailed);  // in the middle
  EXPECT_EQ(state_of(fd_.get(), kPieces * kPiece, kPiece), kFailed);            // behind the end
  EXPECT_EQ(state_of(-1, 0, kPiece), kFailed);
}

bool kernel_has_rings() {
  io_uring ring;
  if (::io_uring_queue_init(1, &ring, 0) != 0) return false;
  ::io_uring_queue_exit(&ring);
  return true;
}

// Else the kernel would write into memory that has another use by then.
TEST(RingOfAPipe, WaitsForItsReadsWhenItIsDestroyed) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const UniqueFd reading(ends[0]);
  const UniqueFd writing(ends[1]);
  char byte = '-';
  RingRead read = {0, {{&byte, 1}}};
  std::jthread late;
  {
    IoRing ring(reading.get(), 1);
    ring.add(read);
    ring.go_on();
    EXPECT_EQ(read.state, RingRead::State::kUnderWay);
    late = std::jthread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      write_all(writing.get(), as_bytes("x"));
    });
  }
  // Without rings, nobody waited for it.
  EXPECT_EQ(byte, kernel_has_rings() ? 'x' : '-');
  EXPECT_EQ(read.state == RingRead::State::kComplete, kernel_has_rings());
}

}  // namespace
}  // namespace convoy
