// What the files of the catalog share: one use of the database, and the values that go in and out
// of it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <SQLiteCpp/SQLiteCpp.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "catalog/catalog.h"

namespace convoy {

// SQLite's integers are signed; none of ours needs the 64th bit.
inline std::uint64_t unsigned_at(SQLite::Statement& row, int column) {
  return static_cast<std::uint64_t>(row.getColumn(column).getInt64());
}

inline Uuid uuid_at(SQLite::Statement& row, int column) {
  const std::string text = row.getColumn(column).getString();
  const std::optional<Uuid> uuid = Uuid::parse(text);
  if (!uuid) throw Error(ErrorKind::kCorrupt, "the catalog has '{}' for a UUID", text);
  return *uuid;
}

inline void bind(SQLite::Statement& statement, int index, const std::string& value) {
  statement.bind(index, value);
}
inline void bind(SQLite::Statement& statement, int index, const char* value) {
  statement.bind(index, value);
}
inline void bind(SQLite::Statement& statement, int index, const Uuid& value) {
  statement.bind(index, value.to_string());
}
inline void bind(SQLite::Statement& statement, int index, const std::filesystem::path& value) {
  statement.bind(index, value.native());
}
inline void bind(SQLite::Statement& statement, int index, std::uint64_t value) {
  statement.bind(index, static_cast<std::int64_t>(value));
}
inline void bind(SQLite::Statement& statement, int index, std::uint32_t value) {
  statement.bind(index, value);
}

template <typename Value>
void bind(SQLite::Statement& statement, int index, const std::optional<Value>& value) {
  if (value) {
    bind(statement, index, *value);
  } else {
    statement.bind(index);  // NULL
  }
}

// The database while this thread has it, in a transaction that is rolled back unless committed.
class Catalog::Access {
 public:
  explicit Access(Catalog& catalog)
      : lock_(catalog.lock_), database_(*catalog.database_), transaction_(database_) {}

  template <typename... Args>
  SQLite::Statement query(const std::string& sql, const Args&... args) {
    SQLite::Statement statement(database_, sql);
    [[maybe_unused]] int index = 0;
    (bind(statement, ++index, args), ...);
    return statement;
  }

  template <typename... Args>
  int execute(const std::string& sql, const Args&... args) {
    return query(sql, args...).exec();
  }

  void commit() {
    transaction_.commit();
    crash_point("catalog");
  }

 private:
  std::lock_guard<std::mutex> lock_;
  SQLite::Database& database_;
  SQLite::Transaction transaction_;
};

// (https://www.sqlite.org/rescode.html)
inline ErrorKind kind_of(const SQLite::Exception& error) {
  switch (error.getErrorCode()) {
    case 13:  // SQLITE_FULL
      return ErrorKind::kNoSpace;
    case 11:  // SQLITE_CORRUPT
    case 26:  // SQLITE_NOTADB
      return ErrorKind::kCorrupt;
    default:
      return ErrorKind::kIo;
  }
}

// Runs `action`, with SQLite's exceptions made ours.
template <typename Action>
auto guarded(Action&& action) {
  try {
    return std::forward<Action>(action)();
  } catch (const SQLite::Exception& error) {
    throw Error(kind_of(error), "the catalog: {}", error.what());
  }
}

template <typename Row>
std::vector<Row> read_all(SQLite::Statement statement, Row (*read)(SQLite::Statement&)) {
  std::vector<Row> rows;
  while (statement.executeStep()) rows.push_back(read(statement));
  return rows;
}

inline const char* to_text(VolumeUser::Kind kind) {
  return kind == VolumeUser::Kind::kCommand ? "command" : "docker";
}

template <typename Database>
void insert_user(Database& access, const Uuid& volume, const VolumeUser& user,
                 const std::filesystem::path& mountpoint) {
  access.execute(
      "INSERT OR REPLACE INTO volume_user (volume, kind, id, boot_id) VALUES (?, ?, ?, ?)", volume,
      to_text(user.kind), user.id, user.boot_id);
  access.execute("UPDATE volume SET mountpoint = ? WHERE uuid = ?", mountpoint, volume);
}

template <typename Row>
std::optional<Row> read_one(SQLite::Statement statement, Row (*read)(SQLite::Statement&)) {
  if (!statement.executeStep()) return std::nullopt;
  return read(statement);
}

}  // namespace convoy
