#include "backup/frame.h"

#include <algorithm>
#include <cstring>
#include <new>

#include <zstd.h>

#include "base/error.h"

namespace convoy {
namespace {

// Measured on real files in pieces of 64 KiB: level 3 makes them 3 % smaller and takes 1.6 times as
// long.
constexpr int kZstdLevel = 1;

[[noreturn]] void refuse(const char* why) {
  throw Error(ErrorKind::kCorrupt, "its frame is damaged: {}", why);
}

FrameHeader header_of(std::span<const std::byte> frame) {
  FrameHeader header;
  if (frame.size() < sizeof header) refuse("it is too short");
  std::memcpy(&header, frame.data(), sizeof header);
  if (header.cipher != 0 || header.reserved != 0 ||
      !all_zero(std::as_bytes(std::span(header.nonce))) ||
      !all_zero(std::as_bytes(std::span(header.tag)))) {
    refuse("a field that must be zero is not");
  }
  if (header.stored_length != frame.size() - sizeof header) refuse("its length is another one");
  return header;
}

}  // namespace

FrameEncoder::FrameEncoder() : context_(ZSTD_createCCtx()) {
  if (!context_) throw std::bad_alloc();
}

FrameEncoder::~FrameEncoder() = default;

void FrameEncoder::Free::operator()(ZSTD_CCtx_s* context) const {
  ZSTD_freeCCtx(context);
}

std::uint32_t FrameEncoder::append(std::span<const std::byte> plain, std::vector<std::byte>& out) {
  const std::size_t begin = out.size();
  const std::size_t body = begin + sizeof(FrameHeader);
  out.resize(body + ZSTD_compressBound(plain.size()));
  std::size_t stored = ZSTD_compressCCtx(context_.get(), out.data() + body, out.size() - body,
                                         plain.data(), plain.size(), kZstdLevel);
  const bool compressed = !ZSTD_isError(stored) && stored < plain.size();
  if (!compressed) {
    stored = plain.size();
    std::ranges::copy(plain, out.begin() + static_cast<std::ptrdiff_t>(body));
  }
  out.resize(body + stored);

  const FrameEncoding encoding = compressed ? FrameEncoding::kZstd : FrameEncoding::kRaw;
  const FrameHeader header{.encoding = static_cast<std::uint8_t>(encoding),
                           .cipher = 0,
                           .reserved = 0,
                           .plain_length = static_cast<std::uint32_t>(plain.size()),
                           .stored_length = static_cast<std::uint32_t>(stored),
                           .nonce = {},
                           .tag = {}};
  std::memcpy(out.data() + begin, &header, sizeof header);
  return static_cast<std::uint32_t>(out.size() - begin);
}

FrameDecoder::FrameDecoder() : context_(ZSTD_createDCtx()) {
  if (!context_) throw std::bad_alloc();
}

FrameDecoder::~FrameDecoder() = default;

void FrameDecoder::Free::operator()(ZSTD_DCtx_s* context) const {
  ZSTD_freeDCtx(context);
}

std::span<const std::byte> FrameDecoder::decode(std::span<const std::byte> frame,
                                                std::size_t max_length) {
  const FrameHeader header = header_of(frame);
  const std::span<const std::byte> stored = frame.subspan(sizeof header);
  const std::size_t plain_length = header.plain_length;
  if (plain_length > max_length) refuse("it claims to hold too much");
  if (header.encoding == static_cast<std::uint8_t>(FrameEncoding::kRaw)) {
    if (stored.size() != plain_length) refuse("its two lengths differ");
    return stored;
  }
  if (header.encoding != static_cast<std::uint8_t>(FrameEncoding::kZstd))
    refuse("unknown encoding");
  if (plain_.size() < plain_length) plain_.resize(plain_length);
  const std::size_t length = ZSTD_decompressDCtx(context_.get(), plain_.data(), plain_length,
                                                 stored.data(), stored.size());
  if (ZSTD_isError(length) || length != plain_length) refuse("it can't be decompressed");
  return std::span(plain_).first(plain_length);
}

}  // namespace convoy
