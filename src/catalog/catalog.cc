#include "catalog/catalog.h"

#include <array>

#include <catalog_schema.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "base/limits.h"
#include "catalog/access.h"

namespace convoy {
namespace {

constexpr int kSchemaVersion = 3;

// From the version that is the index, counted from 1, to the next.
constexpr std::array kMigrations = {
    "ALTER TABLE pool ADD COLUMN low_watermark INTEGER NOT NULL DEFAULT 80;"
    "ALTER TABLE pool ADD COLUMN when_full TEXT NOT NULL DEFAULT 'error' "
    "CHECK (when_full IN ('error', 'queue'));",
    "ALTER TABLE pool ADD COLUMN metadata_snapshot INTEGER NOT NULL DEFAULT 0;",
};
static_assert(kMigrations.size() + 1 == kSchemaVersion);

}  // namespace

Catalog::Catalog(const std::filesystem::path& file) {
  with_context(file.native(), [&] {
    guarded([&] {
      database_ = std::make_unique<SQLite::Database>(
          file.native(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kCatalogBusyTimeout.count());
      // FULL: in WAL mode each commit is synced. A step that we said is recorded must be there
      // after a power cut.
      database_->exec("PRAGMA journal_mode = WAL");
      database_->exec("PRAGMA synchronous = FULL");
      database_->exec("PRAGMA foreign_keys = ON");
      const int version = database_->execAndGet("PRAGMA user_version").getInt();
      if (version > kSchemaVersion) {
        throw Error(ErrorKind::kUnsupported,
                    "made by a newer version of convoy (catalog version {}, we know {})", version,
                    kSchemaVersion);
      }
      if (version > 0) {
        const std::string found = database_->execAndGet("PRAGMA quick_check(1)").getString();
        if (found != "ok") throw Error(ErrorKind::kCorrupt, "damaged: {}", found);
      }
      if (version == kSchemaVersion) return;
      SQLite::Transaction transaction(*database_);
      if (version == 0) {
        database_->exec(kCatalogSchema);
      } else {
        for (int from = version; from < kSchemaVersion; ++from)
          database_->exec(kMigrations.at(static_cast<std::size_t>(from - 1)));
      }
      database_->exec(fmt::format("PRAGMA user_version = {}", kSchemaVersion));
      transaction.commit();
      crash_point("catalog made");
    });
  });
}

Catalog::~Catalog() = default;

// --- Pool ---

std::optional<PoolRow> Catalog::pool() {
  return guarded([&]() -> std::optional<PoolRow> {
    Access access(*this);
    SQLite::Statement row = access.query(
        "SELECT uuid, name, state, data_device, data_size, metadata_device, metadata_size, "
        "block_sectors,"
        "       transaction_id, default_size, default_filesystem, labelled, low_watermark, "
        "       when_full, metadata_snapshot FROM pool");
    if (!row.executeStep()) return std::nullopt;
    PoolRow pool;
    pool.uuid = uuid_at(row, 0);
    pool.name = row.getColumn(1).getString();
    pool.state = row.getColumn(2).getString() == "ready" ? PoolRow::State::kReady
                                                         : PoolRow::State::kCreating;
    pool.data_device = row.getColumn(3).getString();
    pool.data_size = unsigned_at(row, 4);
    pool.metadata_device = row.getColumn(5).getString();
    pool.metadata_size = unsigned_at(row, 6);
    pool.block_size = {unsigned_at(row, 7)};
    pool.transaction_id = unsigned_at(row, 8);
    pool.default_size = unsigned_at(row, 9);
    pool.default_filesystem = row.getColumn(10).getString();
    pool.labelled = row.getColumn(11).getInt() != 0;
    pool.low_watermark = row.getColumn(12).getUInt();
    pool.queue_when_full = row.getColumn(13).getString() == "queue";
    pool.metadata_snapshot = unsigned_at(row, 14);
    return pool;
  });
}

void Catalog::insert_pool(const PoolRow& pool) {
  guarded([&] {
    Access access(*this);
    access.execute(
        "INSERT INTO pool (id, uuid, name, state, data_device, data_size, metadata_device, "
        "metadata_size, block_sectors,"
        "                  transaction_id, next_thin_id, default_size, default_filesystem, "
        "labelled, low_watermark, when_full, metadata_snapshot)"
        " VALUES (1, ?, ?, 'creating', ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, 0)",
        pool.uuid, pool.name, pool.data_device, pool.data_size, pool.metadata_device,
        pool.metadata_size, pool.block_size.count, pool.transaction_id, pool.default_size,
        pool.default_filesystem, pool.labelled ? 1U : 0U, pool.low_watermark,
        pool.queue_when_full ? "queue" : "error");
    access.commit();
  });
}

void Catalog::remove_pool() {
  guarded([&] {
    Access access(*this);
    access.execute("DELETE FROM pool WHERE NOT EXISTS (SELECT 1 FROM device)");
    access.commit();
  });
}

void Catalog::set_pool_ready() {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE pool SET state = 'ready'");
    access.commit();
  });
}

void Catalog::set_pool_transaction(std::uint64_t transaction_id) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE pool SET transaction_id = ?", transaction_id);
    access.commit();
  });
}

void Catalog::set_metadata_snapshot(std::uint64_t block) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE pool SET metadata_snapshot = ?", block);
    access.commit();
  });
}

void Catalog::set_pool_devices(const PoolRow& pool) {
  guarded([&] {
    Access access(*this);
    access.execute(
        "UPDATE pool SET data_device = ?, data_size = ?, metadata_device = ?, metadata_size = ?",
        pool.data_device, pool.data_size, pool.metadata_device, pool.metadata_size);
    access.commit();
  });
}

void Catalog::set_pool_settings(const PoolRow& pool) {
  guarded([&] {
    Access access(*this);
    access.execute(
        "UPDATE pool SET default_size = ?, default_filesystem = ?, low_watermark = ?, when_full = "
        "?",
        pool.default_size, pool.default_filesystem, pool.low_watermark,
        pool.queue_when_full ? "queue" : "error");
    access.commit();
  });
}

}  // namespace convoy
