// Many reads at once by one thread, through io_uring(7).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <sys/uio.h>

struct io_uring;

namespace convoy {

struct RingRead {
  std::uint64_t offset = 0;
  std::vector<iovec> pieces;  // filled one after the other, at most IOV_MAX
  bool complete = false;      // every byte of them was read
};

// Reads them from `fd`, one after the other, and says of each whether it is complete. A read that
// failed or came short is not tried again.
void read_in_turn(int fd, std::span<RingRead> reads);

// Not thread-safe.
class IoRing {
 public:
  // Has up to `depth` requests at the device at a time. Where the kernel has no io_uring, or
  // refuses it to us (a container's seccomp, the sysctl io_uring_disabled), it is one at a time.
  explicit IoRing(unsigned depth);
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;
  ~IoRing();

  // As read_in_turn, many at a time. If the kernel refuses to go on with that, the rest is read in
  // turn.
  void read(int fd, std::span<RingRead> reads);

 private:
  std::size_t submitted() const;
  void collect(std::span<RingRead> reads);
  void give_up(std::span<RingRead> reads);

  std::unique_ptr<io_uring> ring_;  // none: the kernel gave us none
  unsigned depth_;
  std::size_t in_flight_ = 0;
};

}  // namespace convoy
