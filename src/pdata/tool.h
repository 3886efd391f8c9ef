// The programs of convoy-pdata_tools: people know them from the thin-provisioning-tools, whose
// options and output they have (version 0.9.0). Their words for mistakes and damage are our own.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "thinmeta/metadata.h"

namespace convoy {

struct Tool {
  const char* name;
  const char* summary;  // for the list of tools
  // As a program's main: arguments[0] is its name. Prints its result on standard output. Throws
  // Error; what it has printed by then stays printed.
  int (*run)(int count, char** arguments);
};

extern const Tool kThinCheck;
extern const Tool kThinDelta;
extern const Tool kThinDump;
extern const Tool kThinLs;
extern const Tool kThinMetadataSize;

// --- What the tools share ---

// Which metadata to read.
struct MetadataChoice {
  Root root = Root::kLive;
  std::optional<std::uint64_t> held_root =
      {};  // what the caller expects the snapshot's block to be
};

// What the option -m asks for, with its argument or null: the metadata snapshot. Throws
// kInvalidArgument.
MetadataChoice parse_metadata_choice(const char* block);

// The metadata on a device or in a file. Throws kBusy if a pool uses the device and its live
// metadata are asked for, kInvalidArgument if the held root is another than expected.
Metadata open_metadata(const std::string& path, const MetadataChoice& choice);

// A decimal number. Throws kInvalidArgument, naming `what`.
std::uint64_t parse_number(const char* text, const char* what);

// After getopt: the only argument that is no option. Throws kInvalidArgument if there is none, or
// more.
std::string only_operand(int count, char** arguments, const char* what);

// After getopt_long has refused an option, which it has told already.
inline constexpr int kUsageError = 1;

}  // namespace convoy
