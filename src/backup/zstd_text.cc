#include "backup/zstd_text.h"

#include <zstd.h>

#include "base/error.h"

namespace convoy {
namespace {

// Columns of numbers: level 9 makes them a tenth smaller than level 3, and is done with the 65,000
// packs of a TiB in 0.1 s.
constexpr int kLevel = 9;

[[noreturn]] void refuse(const char* why) {
  throw Error(ErrorKind::kCorrupt, "can't be decompressed: {}", why);
}

}  // namespace

std::vector<std::byte> compress_text(std::string_view text) {
  std::vector<std::byte> bytes(ZSTD_compressBound(text.size()));
  const std::size_t length =
      ZSTD_compress(bytes.data(), bytes.size(), text.data(), text.size(), kLevel);
  if (ZSTD_isError(length))
    throw Error(ErrorKind::kInternal, "zstd: {}", ZSTD_getErrorName(length));
  bytes.resize(length);
  return bytes;
}

std::string decompress_text(std::span<const std::byte> bytes, std::uint64_t max_length) {
  const unsigned long long length = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (length == ZSTD_CONTENTSIZE_ERROR || length == ZSTD_CONTENTSIZE_UNKNOWN)
    refuse("it does not begin as a zstd frame with a length");
  if (length > max_length) refuse("it claims to hold too much");
  std::string text(length, '\0');
  const std::size_t count = ZSTD_decompress(text.data(), text.size(), bytes.data(), bytes.size());
  if (ZSTD_isError(count)) refuse(ZSTD_getErrorName(count));
  if (count != text.size()) refuse("it has another length than it claims");
  return text;
}

}  // namespace convoy
