// Frames: the one form in which chunks, tree nodes and footers stand in packs. A header, then the
// bytes as they are stored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
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

class FrameEncoder {
 public:
  FrameEncoder();
  ~FrameEncoder();

  // Appends the frame of `plain` to `out`: compressed, unless that makes it no shorter. Returns the
  // frame's length. After an error `out` is as before.
  std::uint32_t append(std::span<const std::byte> plain, std::vector<std::byte>& out);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
};

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
