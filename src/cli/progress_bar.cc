#include "cli/progress_bar.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/size.h"

namespace convoy {
namespace {

std::string format_seconds(double seconds) {
  if (seconds >= 360'000) return "--:--";
  const auto whole = static_cast<unsigned>(std::lround(seconds));
  if (whole >= 3600)
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::size_t terminal_width() {
  winsize size = {};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string progress_line(std::uint64_t done, std::uint64_t total,
                          std::chrono::duration<double> elapsed, std::size_t width) {
  done = std::min(done, total);
  const double share = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
  const double rate = elapsed.count() > 0 ? static_cast<double>(done) / elapsed.count() : 0;
  const std::string left =
      rate > 0 ? format_seconds(static_cast<double>(total - done) / rate) : "--:--";
  const std::string figures = fmt::format(
      "{:3}%  {} of {}  {}/s  {} left", static_cast<int>(share * 100), format_size(done),
      format_size(total), format_size(static_cast<std::uint64_t>(rate)), left);
  // "[" bar "] " figures
  if (width < figures.size() + 13) return figures.substr(0, width);
  const std::size_t bar = std::min<std::size_t>(width - figures.size() - 3, 40);
  const auto filled = static_cast<std::size_t>(share * static_cast<double>(bar));
  return fmt::format("[{:#<{}}{:.<{}}] {}", "", filled, "", bar - filled, figures);
}

ProgressBar::ProgressBar()
    : on_terminal_(::isatty(STDERR_FILENO) == 1), start_(std::chrono::steady_clock::now()) {}

void ProgressBar::show(std::uint64_t done, std::uint64_t total) {
  if (!on_terminal_ || total == 0) return;
  const std::string line =
      progress_line(done, total, std::chrono::steady_clock::now() - start_, terminal_width() - 1);
  // Back to the line's begin, the new text, and what is left of the old one erased.
  fmt::print(stderr, "\r{}\x1b[K", line);
  static_cast<void>(std::fflush(stderr));
  drawn_ = true;
}

void ProgressBar::finish() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  static_cast<void>(std::fflush(stderr));
  drawn_ = false;
}

}  // namespace convoy
