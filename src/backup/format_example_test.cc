// The worked example of docs/backup-format.md is a store that can be read. So the page can't go
// stale, and a store written by an earlier build stays readable.
//
// After a change of the format the second test fails and shows the blocks of a new example, to be
// put into the page.
#include <filesystem>
#include <regex>
#include <set>
#include <sstream>

#include "backup/backup_testing.h"
#include "backup/zstd_text.h"
#include "base/bytes.h"

namespace convoy {
namespace {

constexpr std::uint64_t kSize = 5 * 4096 + 512;

Bytes first_content() {
  Bytes content(kSize);
  std::fill_n(content.begin(), 4096, std::byte{'a'});
  std::fill_n(content.end() - 512, 512, std::byte{'z'});
  return content;
}

Bytes second_content() {
  Bytes content = first_content();
  std::fill_n(content.begin() + 2 * 4096, 4096, std::byte{'b'});
  return content;
}

// The bytes of lines as xxd(1) prints them: "00000010: 0a0b 0c0d ...  text".
Bytes parse_hex_dump(const std::string& dump) {
  Bytes bytes;
  std::istringstream lines(dump);
  for (std::string line; std::getline(lines, line);) {
    const std::string hex = line.substr(10, line.find("  ", 10) - 10);
    for (std::size_t i = 0; i < hex.size();) {
      if (hex[i] == ' ') {
        ++i;
        continue;
      }
      bytes.push_back(static_cast<std::byte>(std::stoul(hex.substr(i, 2), nullptr, 16)));
      i += 2;
    }
  }
  return bytes;
}

void print_hex_dump(std::ostream& out, std::span<const std::byte> bytes) {
  for (std::size_t line = 0; line < bytes.size(); line += 16) {
    std::string hex, text;
    for (std::size_t i = line; i < std::min(line + 16, bytes.size()); ++i) {
      const auto byte = static_cast<unsigned char>(bytes[i]);
      hex += fmt::format("{:02x}{}", byte, i % 2 == 1 ? " " : "");
      text += byte >= ' ' && byte <= '~' ? static_cast<char>(byte) : '.';
    }
    out << fmt::format("{:08x}: {:<41}{}\n", line, hex, text);
  }
}

// Records stand in the page as text.
bool is_compressed(const std::string& key) {
  return key.ends_with(".zst");
}

bool is_json(const std::string& key) {
  return key.ends_with(".json") || is_compressed(key);
}

// The page's blocks "```json KEY" and "```hex KEY", as objects.
MemoryStore::Objects objects_of_page() {
  const auto page = std::filesystem::path(__FILE__).parent_path() / "../../docs/backup-format.md";
  std::istringstream lines(read_text_file(page));
  MemoryStore::Objects objects;
  std::string kind, key, text;
  for (std::string line; std::getline(lines, line);) {
    if (key.empty()) {
      std::istringstream fence(line);
      if (line.starts_with("```")) fence >> kind >> key;
    } else if (line != "```") {
      text += line + '\n';
    } else {
      const auto plain = as_bytes(text);
      if (kind == "```hex")
        objects[key].data = parse_hex_dump(text);
      else
        objects[key].data =
            is_compressed(key) ? compress_text(text) : Bytes(plain.begin(), plain.end());
      key.clear();
      text.clear();
    }
  }
  return objects;
}

class FormatExample : public BackupTest {};

TEST_F(FormatExample, IsReadAsThePageSays) {
  objects_.set_objects(objects_of_page());
  const Store store = Store::open(objects_);
  const BackupList list = list_backups(store, "example");
  EXPECT_TRUE(list.damaged.empty());
  ASSERT_EQ(list.backups.size(), 2U);
  const auto content_of = [&](const BackupInfo& info) {
    return restored(store, read_backup(store, info.source.lineage, info.uuid));
  };
  EXPECT_TRUE(content_of(list.backups[0]) == first_content());
  EXPECT_TRUE(content_of(list.backups[1]) == second_content());
  EXPECT_EQ(list.backups[1].parent, list.backups[0].uuid);
  const auto page_says = objects_.objects().size();
  EXPECT_EQ(page_says, 8U) << "store.json, volume.json, and three objects for each backup";
}

// Without its UUIDs, which differ from one run to the next.
std::string masked(const std::string& key) {
  return std::regex_replace(key, std::regex("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID");
}

// Of each object its name, and its length, if that is the same in every run.
std::multiset<std::string> forms_of(const MemoryStore::Objects& objects) {
  std::multiset<std::string> forms;
  for (const auto& [key, object] : objects) {
    forms.insert(masked(key) + (is_json(key) ? "" : fmt::format(": {} bytes", object.data.size())));
  }
  return forms;
}

std::string as_page(const MemoryStore::Objects& objects) {
  std::ostringstream page;
  for (const auto& [key, object] : objects) {
    page << "```" << (is_json(key) ? "json " : "hex ") << key << "\n";
    if (is_compressed(key)) {
      page << decompress_text(object.data, kMaxStoreJson);
    } else if (is_json(key)) {
      page << as_text(object.data);
    } else {
      print_hex_dump(page, object.data);
    }
    page << "```\n\n";
  }
  return page.str();
}

TEST_F(FormatExample, IsWhatIsWrittenToday) {
  TestDevice device(kSize);
  device.write(0, first_content());
  BackupPlan plan = plan_of(device, std::nullopt, {{{0, kSize}, SourceKind::kRead}});
  plan.chunk_size = 4096;
  plan.source.volume.name = "example";
  plan.source.snapshot.name = "monday";
  const BackupRecord first = create_backup(store_, plan, {}, {});
  device.write(0, second_content());
  plan.parent = first.info.uuid;
  plan.ranges = {{{2 * 4096, 3 * 4096}, SourceKind::kRead}};
  plan.source.snapshot.name = "tuesday";
  create_backup(store_, plan, {}, {});

  EXPECT_EQ(forms_of(objects_.objects()), forms_of(objects_of_page()))
      << as_page(objects_.objects());
}

}  // namespace
}  // namespace convoy
