// Whatever a text or an object from outside holds, its parser answers or throws convoy::Error; and
// what it has understood, it says in a way that it understands again. A libFuzzer target.
//
// The first byte of an input says whose it is, the rest is what that parser gets: fuzz/seeds has
// one for each.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backup/backup_record.h"
#include "backup/convoy_store.h"
#include "backup/destination.h"
#include "backup/device_io.h"
#include "backup/frame.h"
#include "backup/json_fields.h"
#include "backup/layout.h"
#include "backup/pack.h"
#include "backup/removal_plan.h"
#include "backup/store.h"
#include "backup/tree_node.h"
#include "backup/zstd_text.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/name.h"
#include "base/size.h"
#include "base/time.h"
#include "base/uuid.h"
#include "daemon/http_server.h"
#include "daemon/request_fields.h"
#include "objectstore/ini_file.h"
#include "objectstore/memory_store.h"
#include "objectstore/s3_answer.h"
#include "objectstore/s3_error.h"
#include "objectstore/s3_options.h"
#include "sys/mount_namespace.h"
#include "sys/unique_fd.h"

namespace convoy {
namespace {

using Bytes = std::span<const std::byte>;

void require(bool holds) {
  if (!holds) std::abort();
}

std::string text_of(Bytes bytes) {
  return std::string(as_text(bytes));
}

// --- What users write ---

void size(Bytes bytes) {
  parse_size(as_text(bytes));
}

void destination(Bytes bytes) {
  const Destination parsed = Destination::parse(as_text(bytes));
  require(Destination::parse(parsed.to_string()) == parsed);
}

void backup_url(Bytes bytes) {
  const BackupUrl parsed = BackupUrl::parse(as_text(bytes));
  require(BackupUrl::parse(parsed.to_string()) == parsed);
}

void compression(Bytes bytes) {
  const int level = Compression::parse(as_text(bytes)).zstd_level;
  require(level >= 0 && level <= 19);
}

void mount_options(Bytes bytes) {
  parse_mount_options(text_of(bytes));
}

void mountinfo(Bytes bytes) {
  parse_mountinfo(as_text(bytes));
}

void request(Bytes bytes) {
  const RequestFields fields(text_of(bytes));
  to_text({{"text", fields.text("a")}});
  fields.flag("b");
  fields.texts("c");
}

// s3.conf or a file of AWS's programs, and what a destination is by it.
void ini_file(Bytes bytes) {
  const IniFile file = parse_ini(as_text(bytes));
  const auto value = [&](const char* name) -> std::optional<std::string> {
    const auto section = file.find("environment");
    if (section == file.end() || !section->second.contains(name)) return std::nullopt;
    return section->second.at(name);
  };
  resolve_s3({.bucket = "bucket", .region = "", .path = ""}, "s3://bucket/", "", file, value);
}

// --- What servers and stores say ---

// As the header says, the answer to a request of another kind.
void s3_answer(Bytes bytes) {
  HttpClient::Response response{.status = 200, .headers = {}, .body = {}};
  response.body.assign(bytes.begin(), bytes.end());
  try {
    const ListPage page = parse_list_page(response);
    for (const ListPage::Entry& entry : page.entries)
      require(!entry.object || entry.object->key == entry.key);
  } catch (const HttpFailure&) {  // not a list
  }
  try {
    removal_error(response);
  } catch (const HttpFailure&) {  // not that
  }
  response.status = 400;
  is_unknown_call(response);
  is_transient(response, s3_error_code(response));
  s3_error(response, {});
  server_in(text_of(bytes));
}

void times(Bytes bytes) {
  if (const auto time = parse_rfc3339(as_text(bytes)))
    require(format_rfc3339(*time) == as_text(bytes));
  if (const auto time = parse_for_user(as_text(bytes)))
    require(parse_for_user(format_for_user(*time)) == time);
}

void keys(Bytes bytes) {
  const std::string_view text = as_text(bytes);
  if (const auto pack = parse_pack_name(text)) require(to_string(*pack) == text);
  parse_pack_key(text);
  parse_backup_key(text);
  parse_revocation_key(text);
  parse_json_key(text);
  Uuid::parse(text);
  require(!is_valid_name(text) || is_key_component(text));
}

void record(Bytes bytes) {
  const BackupRecord parsed = parse_record(bytes);
  const std::string text = encode_record(parsed);
  require(encode_record(parse_record(as_bytes(text))) == text);
}

// As if it had been written so.
void sealed_record(Bytes bytes) {
  nlohmann::json json = parse_json(bytes);
  json.erase("checksum");
  try {
    const std::string text = dump_with_checksum(json);
    record(as_bytes(text));
  } catch (const nlohmann::json::exception&) {  // it isn't UTF-8, which no writer has
  }
}

void removal_plan(Bytes bytes) {
  MemoryStore objects;
  const Store store = Store::open_or_create(objects, std::nullopt);
  const Uuid lineage = Uuid::generate();
  objects.put(json_key(lineage, LineagePart::kPlans, lineage), bytes);
  for (RemovalPlan& plan : list_plans(store, lineage)) {
    put_plan(store, plan);
    const RemovalPlan again = list_plans(store, lineage).at(0);
    require(again.packs.ranges() == plan.packs.ranges() &&
            again.rewrites.ranges() == plan.rewrites.ranges() && again.known == plan.known);
  }
}

void compressed_text(Bytes bytes) {
  decompress_text(bytes, kMiB);
}

void frame(Bytes bytes) {
  FrameDecoder decoder;
  require(decoder.decode(bytes, kMaxChunkSize).size() <= kMaxChunkSize);
}

void node(Bytes bytes) {
  for (std::uint32_t level = 0; level < 3; ++level) {
    try {
      require(std::ranges::equal(encode_node(decode_node(bytes, level), level), bytes));
    } catch (const Error&) {  // of another level
    }
  }
}

// A store of Rancher Convoy's: the record of a volume, that of a backup, and what stands in the
// place of each of its blocks, with a NUL after each but the last.
void convoy_store(Bytes bytes) {
  const auto next = [&] {
    const auto end = std::ranges::find(bytes, std::byte{0});
    const Bytes part(bytes.begin(), end);
    bytes = bytes.subspan(std::min(part.size() + 1, bytes.size()));
    return part;
  };
  const std::string volume = "convoy-objectstore/volumes/db/!!/db!!/";
  const ConvoyBackupName name{.volume = "db", .backup = "backup-1"};
  MemoryStore objects;
  objects.put(volume + "volume.cfg", next());
  objects.put(volume + "backups/backup_backup-1.cfg", next());
  list_convoy_backups(objects, std::nullopt);
  const ConvoyBackup backup = read_convoy_backup(objects, name);
  for (const ConvoyBackup::Block& block : backup.blocks)
    objects.put(fmt::format("{}blocks/{}/{}/{}.blk", volume, block.checksum.substr(0, 2),
                            block.checksum.substr(2, 2), block.checksum),
                bytes);
  const std::uint64_t size = backup.info.source.size;
  if (size > 64 * kMiB) return;
  const UniqueFd device(::memfd_create("device", MFD_CLOEXEC));
  require(::ftruncate(device.get(), static_cast<off_t>(size)) == 0);
  restore_convoy_backup(objects, backup, device.get(), {}, {}, [](const Damage&) {});
  require(device_size(device.get()) == size);  // nothing was written behind its end
}

// What a client sends to the daemon's socket.
void http(Bytes bytes) {
  static const std::string path = fmt::format("/tmp/convoy-fuzz-{}.sock", ::getpid());
  static const ListeningSocket listener(path, "");
  static const HttpServer server(listener, [](const HttpRequest& asked) {
    require(asked.body.size() <= kMaxRequestBody);
    try {
      request(as_bytes(asked.body));
    } catch (const Error& error) {
      return HttpResponse{
          .status = http_status(error.kind()), .body = error_text(error), .stream = {}};
    }
    return HttpResponse{.body = to_text({{"name", asked.parameter("name")}}), .stream = {}};
  });
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  require(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  // It may close the connection before it has read all.
  static_cast<void>(::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
  ::shutdown(client.get(), SHUT_WR);
  std::array<char, 4096> answer;
  while (::recv(client.get(), answer.data(), answer.size(), 0) > 0) {
  }
}

// A footer with its trailer, whose checksum is made right.
void footer(Bytes bytes) {
  if (bytes.size() < sizeof(PackTrailer)) return;
  std::vector<std::byte> pack(bytes.begin(), bytes.end());
  PackTrailer trailer;
  const std::size_t at = pack.size() - sizeof trailer;
  std::memcpy(&trailer, pack.data() + at, sizeof trailer);
  if (trailer.footer_offset > at) return;
  const std::size_t sealed =
      pack.size() - sizeof trailer.magic - sizeof trailer.checksum - trailer.footer_offset;
  trailer.checksum = sha256(Bytes(pack).subspan(trailer.footer_offset, sealed));
  std::memcpy(pack.data() + at, &trailer, sizeof trailer);
  FrameDecoder decoder;
  const PackTrailer parsed = parse_trailer(Bytes(pack).last(sizeof trailer), pack.size());
  require(parse_footer(Bytes(pack).subspan(parsed.footer_offset), parsed, decoder).size() <=
          kMaxPackSlots);
}

struct Parser {
  char letter;
  void (*run)(Bytes);
};
constexpr std::array<Parser, 20> kParsers = {
    {{'s', size},          {'d', destination},   {'u', backup_url},
     {'c', compression},   {'m', mount_options}, {'i', mountinfo},
     {'q', request},       {'a', ini_file},      {'x', s3_answer},
     {'t', times},         {'k', keys},          {'r', record},
     {'R', sealed_record}, {'p', removal_plan},  {'z', compressed_text},
     {'f', frame},         {'n', node},          {'o', footer},
     {'C', convoy_store},  {'h', http}}};

}  // namespace
}  // namespace convoy

// libFuzzer's name (https://llvm.org/docs/LibFuzzer.html), and its types.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  for (const auto& parser : convoy::kParsers) {
    if (static_cast<std::uint8_t>(parser.letter) != data[0]) continue;
    try {
      parser.run(std::as_bytes(std::span(data, size)).subspan(1));
    } catch (const convoy::Error&) {  // the right answer to what can't be understood
    }
  }
  return 0;
}
