#include "volumes/pool_watch.h"

#include <spdlog/spdlog.h>

#include "base/limits.h"

namespace convoy {

PoolWatch::PoolWatch(Volumes& volumes)
    : volumes_(volumes), thread_([this](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          try {
            look();
          } catch (const std::exception& error) {
            spdlog::warn("how full the pool is can't be told: {}", error.what());
          }
          try {
            events_.wait(kPoolWatchInterval, stop);
          } catch (const std::exception& error) {
            spdlog::warn("the pool's events can't be waited for: {}", error.what());
            std::this_thread::sleep_for(std::chrono::seconds(1));
          }
        }
      }) {}

void PoolWatch::look() {
  const std::optional<PoolStatus> status = volumes_.pool_status_now();
  if (!status) return;  // the pool is busy with a step
  const PoolSpace space = examine_space(*status, volumes_.pool().low_watermark);
  if (space.level > level_) {
    spdlog::warn(
        "the pool gets full: {}{}", space.used,
        space.level == SpaceLevel::kRefusing ? "; it takes no new volumes and snapshots" : "");
  } else if (space.level < level_) {
    spdlog::info("the pool has {}room again: {}",
                 space.level == SpaceLevel::kLow ? "a little " : "", space.used);
  }
  level_ = space.level;
  if (status->mode != mode_) {
    const bool good = status->mode == PoolStatus::Mode::kReadWrite;
    spdlog::log(good ? spdlog::level::info : spdlog::level::err, "the pool is {} now",
                to_text(status->mode));
  }
  mode_ = status->mode;
}

}  // namespace convoy
