#include "pdata/tool.h"

#include <charconv>
#include <cstring>

#include <getopt.h>

#include "base/error.h"

namespace convoy {

Metadata open_metadata(const std::string& path, const MetadataChoice& choice) {
  if (choice.root == Root::kLive && block_device_number(path) && is_held(path)) {
    throw Error(
        ErrorKind::kBusy,
        "{} is in use, by a pool perhaps, whose metadata change all the time: have it hold a "
        "metadata snapshot (dmsetup message POOL 0 reserve_metadata_snap) and read that "
        "with -m",
        path);
  }
  Metadata metadata(BlockDevice::open(path, Access::kReadOnly), choice.root);
  const std::uint64_t held = metadata.superblock().held_root;
  if (choice.held_root && *choice.held_root != held) {
    throw Error(ErrorKind::kInvalidArgument, "the metadata snapshot is block {}, not {}", held,
                *choice.held_root);
  }
  return metadata;
}

MetadataChoice parse_metadata_choice(const char* block) {
  MetadataChoice choice = {Root::kHeld};
  if (block != nullptr) {
    // -m=5, as its users write it, too.
    choice.held_root = parse_number(*block == '=' ? block + 1 : block, "block of -m");
  }
  return choice;
}

std::uint64_t parse_number(const char* text, const char* what) {
  const char* const end = text + std::strlen(text);
  std::uint64_t number = 0;
  const auto [last, error] = std::from_chars(text, end, number);
  if (error != std::errc{} || last != end || text == end)
    throw Error(ErrorKind::kInvalidArgument, "the {} '{}' is not a number", what, text);
  return number;
}

std::string only_operand(int count, char** arguments, const char* what) {
  if (optind == count) throw Error(ErrorKind::kInvalidArgument, "give {}", what);
  if (optind + 1 < count) {
    throw Error(ErrorKind::kInvalidArgument, "'{}' is one argument too many",
                arguments[optind + 1]);
  }
  return arguments[optind];
}

}  // namespace convoy
