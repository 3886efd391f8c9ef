#include "backup/frame.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <new>

#include <zstd.h>

#include "base/error.h"

namespace convoy {
namespace {

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

Compression Compression::parse(std::string_view text) {
  constexpr std::string_view kZstd = "zstd";
  constexpr int kMaxLevel = 19;  // those above take memory that a reader must be told to have
  if (text == "none") return {.zstd_level = 0};
  if (text == kZstd) return {};
  Compression compression;
  if (text.starts_with("zstd:")) {
    const std::string_view level = text.substr(kZstd.size() + 1);
    const char* const begin = level.data();  // NOLINT(bugprone-suspicious-stringview-data-usage)
    const char* const end = begin + level.size();
    const auto [rest, error] = std::from_chars(begin, end, compression.zstd_level);
    if (error == std::errc{} && rest == end && compression.zstd_level >= 1 &&
        compression.zstd_level <= kMaxLevel)
      return compression;
  }
  throw Error(ErrorKind::kInvalidArgument,
              "there is no compression '{}'; give none, zstd, or zstd:1 to zstd:{}", text,
              kMaxLevel);
}

FrameEncoder::FrameEncoder(const Compression& compression)
    : level_(compression.zstd_level), context_(ZSTD_createCCtx()) {
  if (!context_) throw std::bad_alloc();
}

FrameEncoder::~FrameEncoder() = default;

void FrameEncoder::Free::operator()(ZSTD_CCtx_s* context) const {
  ZSTD_freeCCtx(context);
}

std::uint32_t FrameEncoder::append(std::span<const std::byte> plain, std::vector<std::byte>& out) {
  const std::span<const std::byte> compressed = compress(plain);
  const std::span<const std::byte> stored = compressed.empty() ? plain : compressed;
  const FrameEncoding encoding = compressed.empty() ? FrameEncoding::kRaw : FrameEncoding::kZstd;
  const FrameHeader header{.encoding = static_cast<std::uint8_t>(encoding),
                           .cipher = 0,
                           .reserved = 0,
                           .plain_length = static_cast<std::uint32_t>(plain.size()),
                           .stored_length = static_cast<std::uint32_t>(stored.size()),
                           .nonce = {},
                           .tag = {}};
  const auto header_bytes = bytes_of(header);
  out.insert(out.end(), header_bytes.begin(), header_bytes.end());
  out.insert(out.end(), stored.begin(), stored.end());
  return static_cast<std::uint32_t>(sizeof header + stored.size());
}

std::span<const std::byte> FrameEncoder::compress(std::span<const std::byte> plain) {
  if (level_ == 0) return {};
  const std::size_t bound = ZSTD_compressBound(plain.size());
  if (compressed_.size() < bound) compressed_.resize(bound);
  const std::size_t length = ZSTD_compressCCtx(context_.get(), compressed_.data(), bound,
                                               plain.data(), plain.size(), level_);
  if (ZSTD_isError(length) || length >= plain.size()) return {};
  return std::span(compressed_).first(length);
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
