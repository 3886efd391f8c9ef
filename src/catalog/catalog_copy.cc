#include "catalog/catalog_copy.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

using Clock = std::chrono::steady_clock;

// A change is copied after this; and what takes long, as 100,000 snapshots do, is not done again
// before so many times as long.
constexpr std::chrono::milliseconds kInterval{1000};
constexpr int kRest = 50;

void sync(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw system_error(errno, path.native());
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0) throw system_error(error, path.native());
}

}  // namespace

std::filesystem::path catalog_copy_path(const std::filesystem::path& catalog) {
  return catalog.native() + ".copy";
}

CatalogCopy::CatalogCopy(std::filesystem::path catalog)
    : catalog_(std::move(catalog)),
      thread_([this](const std::stop_token& stop) { follow(stop); }) {}

CatalogCopy::~CatalogCopy() {
  thread_.request_stop();
  thread_.join();
}

void CatalogCopy::follow(const std::stop_token& stop) {
  auto rest = kInterval;
  bool told = false;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      stopped_.wait_for(lock, stop, rest, [] { return false; });
    }
    const auto begin = Clock::now();
    try {
      copy_if_changed();
      told = false;
    } catch (const std::exception& error) {
      if (!told) spdlog::error("the catalog can't be copied: {}", error.what());
      told = true;
    }
    if (stop.stop_requested()) return;
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
    rest = std::max(kInterval, took * kRest);
  }
}

void CatalogCopy::copy_if_changed() {
  if (!database_) {
    database_ = std::make_unique<SQLite::Database>(catalog_.native(), SQLite::OPEN_READWRITE,
                                                   kCatalogBusyTimeout.count());
  }
  // It changes with each commit of another connection. (https://www.sqlite.org/pragma.html)
  const std::int64_t version = database_->execAndGet("PRAGMA data_version").getInt64();
  if (version == copied_version_) return;
  const std::filesystem::path copy = catalog_copy_path(catalog_);
  const std::filesystem::path unfinished = copy.native() + ".new";
  std::filesystem::remove(unfinished);
  try {
    SQLite::Statement statement(*database_, "VACUUM INTO ?");
    statement.bind(1, unfinished.native());
    statement.exec();
    sync(unfinished, 0);
    std::filesystem::rename(unfinished, copy);
  } catch (...) {
    // A disk that is full needs its space for the catalog.
    std::error_code error;
    std::filesystem::remove(unfinished, error);
    throw;
  }
  sync(copy.parent_path(), O_DIRECTORY);
  copied_version_ = version;
}

}  // namespace convoy
