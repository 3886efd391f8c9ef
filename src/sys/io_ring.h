// Many reads at once by one thread, through io_uring(7).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include <sys/uio.h>

struct io_uring;  // NOLINT(readability-identifier-naming): of liburing

namespace convoy {

struct RingRead {
  enum class State { kUnderWay, kComplete, kFailed };

  std::uint64_t offset = 0;
  std::vector<iovec> pieces;  // filled one after the other, at most IOV_MAX
  // kComplete: every byte of them was read. A read that failed or came short is not tried again.
  State state = State::kUnderWay;
};

// Reads `read` from `fd` while the caller waits.
void read_at_once(int fd, RingRead& read);

// Not thread-safe.
class IoRing {
 public:
  // Has up to `depth` requests at the device at a time. Where the kernel has no io_uring, or
  // refuses it to us (a container's seccomp, the sysctl io_uring_disabled), or refuses to go on
  // with it, each read is made when it is waited for.
  IoRing(int fd, unsigned depth);
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;
  // Waits for what the device has. What it does not have yet stays kUnderWay.
  ~IoRing();

  // Asks for `read`, which begins at some call after this one. Until it is complete or failed, it
  // and what its pieces point at stay where they are, or until this is destroyed.
  void add(RingRead& read) { waiting_.push_back(&read); }

  // Takes what the device has done and gives it more, without waiting for it.
  void go_on();

  // Returns when `read`, which was added, is not under way any more.
  void wait_for(const RingRead& read);

 private:
  void fill();
  void submit(unsigned wait_for);
  void collect();
  void drain(std::size_t left);
  void give_up();

  std::unique_ptr<io_uring> ring_;  // none: the kernel gave us none
  int fd_;
  unsigned depth_;
  std::deque<RingRead*> waiting_;     // not given to the ring yet
  std::vector<RingRead*> in_flight_;  // the ring's
};

}  // namespace convoy
