// Frames: the one form in which chunks, tree nodes and footers stand in packs. A header, then the
// bytes as they are stored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace convoy {

enum class FrameEncoding : std::uint8_t { kRaw = 0, kZstd = 1 };

// Nonce and tag have room for an authenticated cipher. There is none yet: cipher, nonce and tag are
// zero.
struct FrameHeader {
  std::uint8_t encoding;
  std::uint8_t cipher;
  Le16 reserved;
  Le32 plain_length;
  Le32 stored_length;  // of what follows the header
  std::array<std::uint8_t, 12> nonce;
  std::array<std::uint8_t, 16> tag;
};
static_assert(sizeof(FrameHeader) == 40);

// How chunks are compressed. Nodes and footers are always compressed by the default.
struct Compression {
  // Measured on real files in pieces of 64 KiB: level 3 makes them 3 % smaller and takes 1.6 times
  // as long.
  int zstd_level = 1;  // 1 to 19; 0: not at all

  // Of "none", "zstd" or "zstd:<level>". Throws kInvalidArgument.
  static Compression parse(std::string_view text);
};

// Not thread-safe.
class FrameEncoder {
 public:
  explicit FrameEncoder(const Compression& compression = {});
  ~FrameEncoder();

  // Appends the frame of `plain` to `out`: compressed, unless that makes it no shorter. Returns the
  // frame's length.
  std::uint32_t append(std::span<const std::byte> plain, std::vector<std::byte>& out);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  // Nothing if it makes the bytes no shorter. Valid until the next call.
  std::span<const std::byte> compress(std::span<const std::byte> plain);

  int level_;
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
  std::vector<std::byte> compressed_;
};

// Not thread-safe.
class FrameDecoder {
 public:
  FrameDecoder();
  ~FrameDecoder();

  // The plain bytes of a frame, valid until the next call. Throws kCorrupt if `frame` is not
  // exactly one frame, or holds more than `max_length` plain bytes: no more memory than that is
  // taken, whatever it claims.
  std::span<const std::byte> decode(std::span<const std::byte> frame, std::size_t max_length);

 private:
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_DCtx_s, Free> context_;
  std::vector<std::byte> plain_;
};

}  // namespace convoy
