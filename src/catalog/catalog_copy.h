// A copy of the catalog beside it, for when the catalog is lost or damaged (volumes/adoption.h).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>

namespace SQLite {
class Database;
}

namespace convoy {

// Where the copy of `catalog` is.
std::filesystem::path catalog_copy_path(const std::filesystem::path& catalog);

// Makes the copy anew within some seconds after each change, on a thread of its own. It is complete
// and durable, or the one before, at any time. What can't be copied is logged, and tried again.
class CatalogCopy {
 public:
  // `catalog` has been opened by a Catalog.
  explicit CatalogCopy(std::filesystem::path catalog);
  // Makes it a last time if it is behind.
  ~CatalogCopy();
  CatalogCopy(const CatalogCopy&) = delete;
  CatalogCopy& operator=(const CatalogCopy&) = delete;

 private:
  void follow(const std::stop_token& stop);
  void copy_if_changed();

  const std::filesystem::path catalog_;
  std::unique_ptr<SQLite::Database> database_;
  std::int64_t copied_version_ = -1;  // SQLite's, of what the copy holds

  std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::jthread thread_;  // last, since it uses all the others
};

}  // namespace convoy
