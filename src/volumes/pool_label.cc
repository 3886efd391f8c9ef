#include "volumes/pool_label.h"

#include <algorithm>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "sys/aligned_buffer.h"
#include "sys/block_device.h"
#include "sys/file.h"

namespace convoy {
namespace {

// A line of text, for whoever looks at the device: this, the UUID, a newline; then zeros.
constexpr std::string_view kMark = "convoy thin pool data ";
constexpr std::size_t kUuidLength = 36;

void write_block(const std::filesystem::path& path, std::string_view text) {
  AlignedBuffer block(kDirectAlignment);
  std::ranges::fill(block.bytes(), std::byte{0});
  std::ranges::copy(as_bytes(text), block.bytes().begin());
  const BlockDevice device = BlockDevice::open(path, Access::kReadWrite);
  write_all_at(device.fd(), block.bytes(), 0);
  fsync_file(device.fd(), path);
}

}  // namespace

void write_label(ThinPool& pool, const PoolRow& row) {
  const std::string name = row.name + "-label";
  pool.create_thin(kLabelThinId);
  pool.deactivate(name);  // of a process that was killed here
  pool.activate(name, "label", kLabelThinId, row.block_size, Access::kReadWrite);
  try {
    write_block(pool.device_path(name), fmt::format("{}{}\n", kMark, row.uuid.to_string()));
  } catch (...) {
    pool.deactivate(name);
    throw;
  }
  pool.deactivate(name);
  if (find_label(row.data_device) != row.uuid) {
    throw Error(ErrorKind::kInternal, "the kernel did not put a new pool's first block first on {}",
                row.data_device.native());
  }
}

std::optional<Uuid> find_label(const std::filesystem::path& data_device) {
  AlignedBuffer block(kDirectAlignment);
  read_exactly_at(BlockDevice::open(data_device, Access::kReadOnly).fd(), block.bytes(), 0);
  const std::string_view text = as_text(block.bytes());
  if (!text.starts_with(kMark)) return std::nullopt;
  return Uuid::parse(text.substr(kMark.size(), kUuidLength));
}

}  // namespace convoy
