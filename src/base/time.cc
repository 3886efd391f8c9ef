#include "base/time.h"

#include <array>
#include <cstdio>
#include <ctime>

#include <fmt/format.h>

namespace convoy {
namespace {

std::tm to_utc(Timestamp time) {
  // Not system_clock's own to_time_t: that one counts nanoseconds, and ends in 2262.
  const std::time_t seconds =
      std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count();
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  return utc;
}

}  // namespace

Timestamp now() {
  return std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
}

std::string format_for_user(Timestamp time) {
  // Not strftime's %a and %b: those follow the locale, and scripts parse this.
  constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::tm utc = to_utc(time);
  return fmt::format("{} {} {:02} {:02}:{:02}:{:02} +0000 {}",
                     kDays[static_cast<std::size_t>(utc.tm_wday)],
                     kMonths[static_cast<std::size_t>(utc.tm_mon)], utc.tm_mday, utc.tm_hour,
                     utc.tm_min, utc.tm_sec, utc.tm_year + 1900);
}

std::optional<Timestamp> parse_for_user(std::string_view text) {
  std::tm parts = {};
  const std::string copy(text);
  const char* const end = ::strptime(copy.c_str(), "%a %b %d %H:%M:%S +0000 %Y", &parts);
  if (end == nullptr) return std::nullopt;
  const Timestamp time{std::chrono::seconds(::timegm(&parts))};
  if (format_for_user(time) != text) return std::nullopt;
  return time;
}

std::string format_rfc3339(Timestamp time) {
  const std::tm utc = to_utc(time);
  const auto milliseconds = (time - std::chrono::floor<std::chrono::seconds>(time)).count();
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                     milliseconds);
}

std::optional<Timestamp> parse_rfc3339(std::string_view text) {
  int year = 0;
  unsigned month = 0, day = 0, hour = 0, minute = 0, second = 0, millisecond = 0;
  const std::string copy(text);
  if (std::sscanf(copy.c_str(), "%4d-%2u-%2uT%2u:%2u:%2u.%3uZ", &year, &month, &day, &hour, &minute,
                  &second, &millisecond) != 7) {
    return std::nullopt;
  }
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!date.ok()) return std::nullopt;
  const Timestamp time = std::chrono::sys_days(date) + std::chrono::hours(hour) +
                         std::chrono::minutes(minute) + std::chrono::seconds(second) +
                         std::chrono::milliseconds(millisecond);
  // sscanf is lenient about white space, signs and missing digits: only the one form that we write
  // comes back equal.
  if (format_rfc3339(time) != text) return std::nullopt;
  return time;
}

}  // namespace convoy
