// So many bytes a second, for all threads together.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>

namespace convoy {

// Thread-safe.
class RateLimit {
 public:
  // 0: no limit.
  explicit RateLimit(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // How much of so many bytes should be taken at once: a tenth of a second's.
  std::size_t piece(std::size_t bytes) const {
    if (bytes_per_second_ == 0 || bytes == 0) return bytes;
    return std::min<std::size_t>(bytes, std::max<std::uint64_t>(bytes_per_second_ / 10, 1));
  }

  // Waits as long as so many bytes take. Time that nobody used is not made up for.
  void take(std::uint64_t bytes) {
    if (bytes_per_second_ == 0) return;
    Clock::time_point end;
    {
      const std::lock_guard lock(mutex_);
      const auto duration =
          std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
              static_cast<double>(bytes) / static_cast<double>(bytes_per_second_)));
      busy_until_ = std::max(busy_until_, Clock::now()) + duration;
      end = busy_until_;
    }
    std::this_thread::sleep_until(end);
  }

 private:
  using Clock = std::chrono::steady_clock;

  const std::uint64_t bytes_per_second_;
  std::mutex mutex_;
  Clock::time_point busy_until_;
};

}  // namespace convoy
