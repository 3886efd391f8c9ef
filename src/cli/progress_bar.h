// The line on a terminal that shows how far a job is: a bar, bytes, rate and the time that is left.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace convoy {

// The line, `width` characters at most, without control characters.
std::string progress_line(std::uint64_t done, std::uint64_t total,
                          std::chrono::duration<double> elapsed, std::size_t width);

// Draws on standard error if that is a terminal; else it does nothing.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // A total of 0 is one that isn't known yet: nothing is drawn.
  void show(std::uint64_t done, std::uint64_t total);
  // Wipes the line.
  void finish();

 private:
  bool on_terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace convoy
