#include "backup/convoy_store.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <openssl/sha.h>
#define ZLIB_CONST  // what is read is const
#include <zlib.h>

#include "backup/device_io.h"
#include "backup/json_fields.h"
#include "backup/ordered_workers.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/limits.h"
#include "base/name.h"
#include "base/time.h"
#include "sys/file.h"

namespace convoy {
namespace {

constexpr std::string_view kVolumes = "convoy-objectstore/volumes/";
constexpr std::string_view kRecordPrefix = "backup_";
constexpr std::string_view kRecordSuffix = ".cfg";
constexpr std::uint64_t kBlockSize = 2 * kMiB;
// gzip makes what can't be compressed a little larger.
constexpr std::uint64_t kMaxBlockObject = kBlockSize + 64 * kKiB;
constexpr std::size_t kChecksumDigits = 64;

std::string volume_prefix(const std::string& volume) {
  std::string padded = volume;
  while (padded.size() < 4) padded += '!';
  return fmt::format("{}{}/{}/{}/", kVolumes, padded.substr(0, 2), padded.substr(2, 2), padded);
}

std::string record_key(const ConvoyBackupName& name) {
  return fmt::format("{}backups/{}{}{}", volume_prefix(name.volume), kRecordPrefix, name.backup,
                     kRecordSuffix);
}

std::string block_key(const std::string& volume, const std::string& checksum) {
  return fmt::format("{}blocks/{}/{}/{}.blk", volume_prefix(volume), checksum.substr(0, 2),
                     checksum.substr(2, 2), checksum);
}

// The name of a backup of which `key` is the record; empty for any other key.
std::string backup_of(std::string_view key) {
  std::string_view name = key.substr(key.rfind('/') + 1);
  if (!name.starts_with(kRecordPrefix) || !name.ends_with(kRecordSuffix)) return "";
  name.remove_prefix(kRecordPrefix.size());
  name.remove_suffix(kRecordSuffix.size());
  return is_valid_name(name) ? std::string(name) : "";
}

std::string checksum_of(std::span<const std::byte> plain) {
  std::array<std::uint8_t, SHA512_DIGEST_LENGTH> digest = {};
  SHA512(reinterpret_cast<const unsigned char*>(plain.data()), plain.size(), digest.data());
  return to_hex(std::span(digest).first(kChecksumDigits / 2));
}

bool is_checksum(std::string_view text) {
  return text.size() == kChecksumDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Timestamp parse_time(const JsonFields& fields, const std::string& name) {
  const auto time = parse_for_user(fields.text(name, 100));
  if (!time) fields.refuse(name, "is no time");
  return *time;
}

std::vector<ConvoyBackup::Block> parse_blocks(const JsonFields& fields, std::uint64_t size) {
  if (!fields.has("Blocks") || fields.is_null("Blocks")) return {};  // of an empty volume
  const nlohmann::json& list = fields.field("Blocks");
  if (!list.is_array()) fields.refuse("Blocks", "is not a list");
  std::vector<ConvoyBackup::Block> blocks;
  for (const nlohmann::json& element : list) {
    if (!element.is_object()) fields.refuse("Blocks", "has an element that is no block");
    const JsonFields block(element, "Blocks.");
    blocks.push_back({.offset = block.number("Offset", size - 1),
                      .checksum = block.text("BlockChecksum", kChecksumDigits)});
    if (blocks.back().offset % kBlockSize != 0 || !is_checksum(blocks.back().checksum))
      fields.refuse("Blocks", "has an element that can't be");
  }
  std::ranges::sort(blocks, {}, &ConvoyBackup::Block::offset);
  return blocks;
}

// gzip, as RFC 1952 has it: one member.
std::vector<std::byte> gunzip(std::span<const std::byte> packed) {
  std::vector<std::byte> plain(kBlockSize);
  z_stream stream = {};
  constexpr int kGzipWindow = 16 + MAX_WBITS;
  if (::inflateInit2(&stream, kGzipWindow) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, decltype(&::inflateEnd)> end(&stream, &::inflateEnd);
  stream.next_in = reinterpret_cast<const Bytef*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(plain.data());
  stream.avail_out = static_cast<uInt>(plain.size());
  if (::inflate(&stream, Z_FINISH) != Z_STREAM_END)
    throw Error(ErrorKind::kCorrupt, "the block can't be decompressed");
  plain.erase(plain.end() - static_cast<std::ptrdiff_t>(stream.avail_out), plain.end());
  return plain;
}

std::vector<std::byte> read_block(ObjectStore& objects, const std::string& volume,
                                  const std::string& checksum) {
  const std::string key = block_key(volume, checksum);
  return with_context(key, [&] {
    std::vector<std::byte> packed;
    try {
      packed = objects.get(key, kMaxBlockObject);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;
      throw Error(ErrorKind::kCorrupt, "the block is missing");
    }
    std::vector<std::byte> plain = gunzip(packed);
    if (checksum_of(plain) != checksum)
      throw Error(ErrorKind::kCorrupt, "the block does not hold the bytes that were stored there");
    return plain;
  });
}

// Convoy's records don't tell. Its driver knew these two.
std::string filesystem_in(std::span<const std::byte> begin) {
  constexpr std::size_t kExt4Magic = 1024 + 56;  // Documentation/filesystems/ext4/super.rst
  if (begin.size() < kBlockSize) return "";
  if (as_text(begin.subspan(kExt4Magic, 2)) == "\x53\xef") return "ext4";
  if (as_text(begin.first(4)) == "XFSB") return "xfs";
  return "";
}

std::string filesystem_of(ObjectStore& objects, const ConvoyBackup& backup) {
  if (backup.blocks.empty() || backup.blocks.front().offset != 0) return "";
  try {
    return filesystem_in(read_block(objects, backup.name.volume, backup.blocks.front().checksum));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) throw;
    return "";  // a restore comes upon it again, and tells it as damage
  }
}

// What Convoy keeps of a volume, without its UUIDs. Throws kCorrupt, too, if it is missing: there
// are records of the volume's backups.
BackupSource read_volume(ObjectStore& objects, const std::string& name) {
  const std::string key = volume_prefix(name) + "volume.cfg";
  try {
    const nlohmann::json json = get_json(objects, key);
    return with_context(key, [&] {
      const JsonFields volume(json);
      BackupSource source;
      source.driver = volume.text("Driver", kMaxNameLength);
      source.size = volume.number("Size", kMaxVolumeSize);
      if (source.size == 0 || source.size % kSectorBytes != 0) volume.refuse("Size", "can't be");
      source.volume.name = name;
      source.volume.created = parse_time(volume, "CreatedTime");
      return source;
    });
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    throw Error(ErrorKind::kCorrupt, "{}: is missing, so the volume's size is not known", key);
  }
}

ConvoyBackup parse_record(const ConvoyBackupName& name, const nlohmann::json& json,
                          BackupSource source) {
  return with_context(record_key(name), [&] {
    const JsonFields record(json);
    if (record.has("SingleFile") && !record.object("SingleFile").text("FilePath", 4096).empty())
      throw Error(ErrorKind::kUnsupported, "was made by another driver than devicemapper");
    ConvoyBackup backup{.name = name, .info = {}, .blocks = parse_blocks(record, source.size)};
    source.snapshot.name = record.text("SnapshotName", 255);
    source.snapshot.created = parse_time(record, "SnapshotCreatedAt");
    backup.info.uuid = name.uuid();
    backup.info.created = parse_time(record, "CreatedTime");
    backup.info.source = std::move(source);
    return backup;
  });
}

void list_volume(ObjectStore& objects, const std::string& volume, ConvoyBackupList& list) {
  std::optional<BackupSource> source;
  std::vector<ConvoyBackup> backups;
  objects.list(volume_prefix(volume) + "backups/", [&](const ObjectInfo& info) {
    const ConvoyBackupName name{.volume = volume, .backup = backup_of(info.key)};
    if (name.backup.empty()) return;
    try {
      const nlohmann::json record = get_json(objects, info.key);
      if (!source) source = read_volume(objects, volume);
      backups.push_back(parse_record(name, record, *source));
      backups.back().blocks = {};
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) return;  // deleted since it was listed
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
      list.damaged.push_back(error);
    }
  });
  std::ranges::sort(backups, {}, [](const ConvoyBackup& backup) { return backup.info.created; });
  std::ranges::move(backups, std::back_inserter(list.backups));
}

class ConvoyRestore {
 public:
  ConvoyRestore(ObjectStore& objects, const ConvoyBackup& backup, int device_fd,
                const DamageSink& damaged)
      : objects_(objects), backup_(backup), device_fd_(device_fd), damaged_(damaged) {
    while (buffers_.size() < fetcher_count()) buffers_.emplace_back(kBlockSize);
  }

  void run(const ProgressSink& progress, const std::stop_token& stop);

 private:
  using Block = ConvoyBackup::Block;

  void restore_block(const Block& block, AlignedBuffer& buffer) const;

  ObjectStore& objects_;
  const ConvoyBackup& backup_;
  const int device_fd_;
  const DamageSink& damaged_;
  std::deque<AlignedBuffer> buffers_;  // by thread
};

void ConvoyRestore::run(const ProgressSink& progress, const std::stop_token& stop) {
  const std::uint64_t total = backup_.blocks.size() * kBlockSize;
  std::atomic<std::uint64_t> done = 0;
  OrderedWorkers<Block> workers(
      fetcher_count(), fetcher_count() * std::size_t{2},
      [&](const Block& block, unsigned thread) {
        check_stop(stop, "restore");
        restore_block(block, buffers_[thread]);
      },
      [&](const Block&) { done += kBlockSize; });
  const auto report = [&] {
    if (progress) progress({.bytes_done = done, .bytes_total = total});
  };
  for (const Block& block : backup_.blocks) {
    check_stop(stop, "restore");
    workers.add(block);
    report();
  }
  workers.wait();
  fsync_file(device_fd_, "the restored device");
  report();
}

void ConvoyRestore::restore_block(const Block& block, AlignedBuffer& buffer) const {
  const std::uint64_t length = std::min(kBlockSize, backup_.info.source.size - block.offset);
  try {
    const std::vector<std::byte> plain = read_block(objects_, backup_.name.volume, block.checksum);
    const auto bytes = std::span(plain).first(std::min<std::size_t>(plain.size(), length));
    if (all_zero(bytes)) return;  // as the device is
    std::ranges::copy(bytes, buffer.bytes().begin());
    write_device(device_fd_, buffer.bytes().first(bytes.size()), block.offset);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt || !damaged_) throw;
    damaged_({.range = {block.offset, block.offset + length},
              .reference = {},
              .reason = error.message()});
  }
}

}  // namespace

// The digits of a name that Convoy made are random, and stay.
Uuid ConvoyBackupName::uuid() const {
  const Digest digest = sha256(as_bytes(fmt::format("{}/{}", volume, backup)));
  std::array<std::uint8_t, 16> bytes = {};
  std::ranges::copy_n(digest.begin(), bytes.size(), bytes.begin());
  constexpr std::uint8_t kVersion = 8, kVariant = 0x80;  // RFC 9562, 5.8: of a form of one's own
  bytes[6] = static_cast<std::uint8_t>((bytes[6] & 0x0F) | (kVersion << 4));
  bytes[8] = static_cast<std::uint8_t>((bytes[8] & 0x3F) | kVariant);
  return Uuid(bytes);
}

ConvoyBackupList list_convoy_backups(ObjectStore& objects,
                                     const std::optional<std::string>& volume_name) {
  std::vector<std::string> volumes;
  const std::string top(kVolumes);
  for (const std::string& first : objects.list_directories(top)) {
    for (const std::string& second : objects.list_directories(fmt::format("{}{}/", top, first))) {
      for (std::string name :
           objects.list_directories(fmt::format("{}{}/{}/", top, first, second))) {
        while (name.ends_with('!')) name.pop_back();
        if (is_valid_name(name) && (!volume_name || name == *volume_name))
          volumes.push_back(std::move(name));
      }
    }
  }
  ConvoyBackupList list;
  for (const std::string& volume : volumes) list_volume(objects, volume, list);
  return list;
}

ConvoyBackup read_convoy_backup(ObjectStore& objects, const ConvoyBackupName& name) {
  try {
    const nlohmann::json record = get_json(objects, record_key(name));
    ConvoyBackup backup = parse_record(name, record, read_volume(objects, name.volume));
    backup.info.source.volume.filesystem = filesystem_of(objects, backup);
    return backup;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    throw Error(ErrorKind::kNotFound, "the destination has no backup {} of a volume {}",
                name.backup, name.volume);
  }
}

void restore_convoy_backup(ObjectStore& objects, const ConvoyBackup& backup, int device_fd,
                           const ProgressSink& progress, const std::stop_token& stop,
                           const DamageSink& damaged) {
  if (device_size(device_fd) < backup.info.source.size)
    throw Error(ErrorKind::kInvalidArgument, "the device is shorter than the backup's volume");
  ConvoyRestore(objects, backup, device_fd, damaged).run(progress, stop);
}

}  // namespace convoy
