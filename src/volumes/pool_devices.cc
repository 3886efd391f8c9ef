#include "volumes/pool_devices.h"

#include <string>

#include <sys/sysmacros.h>

#include "base/error.h"
#include "base/size.h"
#include "base/uuid.h"
#include "sys/block_device.h"
#include "thinmeta/superblock.h"
#include "volumes/pool_label.h"

namespace convoy {
namespace {

void require_empty(const char* option, const std::filesystem::path& path) {
  const std::optional<std::string> signature = find_signature(path);
  if (!signature) return;
  throw Error(ErrorKind::kInvalidArgument,
              "{}={} holds {}; if its data may be destroyed, start once with --force-new-pool",
              option, path.native(), *signature);
}

// libblkid knows neither of what a thin pool's two devices hold.
void require_no_pool_data(const std::filesystem::path& path) {
  const std::optional<Uuid> label = find_label(path);
  if (label) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.datadev={} holds the volumes of pool {}, which this root doesn't know; start "
                "with the --root it belongs to, or, if all volumes on it may be destroyed, once "
                "with --force-new-pool",
                path.native(), label->to_string());
  }
  if (classify_metadata(BlockDevice::open(path, Access::kReadOnly)) ==
      MetadataContent::kThinMetadata) {
    throw Error(ErrorKind::kInvalidArgument,
                "dm.datadev={} holds the metadata of a thin pool; if its volumes may be destroyed, "
                "start once with --force-new-pool",
                path.native());
  }
}

// The kernel makes a new pool only on a metadata device that begins with zeros; else it opens what
// is there.
void require_no_metadata(const std::filesystem::path& path) {
  switch (classify_metadata(BlockDevice::open(path, Access::kReadOnly))) {
    case MetadataContent::kZero:
      return;
    case MetadataContent::kThinMetadata:
      throw Error(
          ErrorKind::kInvalidArgument,
          "dm.metadatadev={} holds the metadata of a thin pool that this root doesn't know; start "
          "with the --root "
          "it belongs to, or, if all volumes on it may be destroyed, once with --force-new-pool",
          path.native());
    case MetadataContent::kForeign:
      throw Error(ErrorKind::kInvalidArgument,
                  "dm.metadatadev={} is not empty: its first 4 KiB are not zero; if its data may "
                  "be destroyed, start once "
                  "with --force-new-pool",
                  path.native());
  }
}

}  // namespace

dev_t require_block_device(const char* option, const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    throw Error(ErrorKind::kInvalidArgument, "{}={} does not exist; give the block device to use",
                option, path.native());
  }
  const std::optional<dev_t> number = block_device_number(path);
  if (!number) {
    throw Error(ErrorKind::kInvalidArgument,
                "{}={} is not a block device (use losetup to make one of a file)", option,
                path.native());
  }
  return *number;
}

void require_free(const char* option, const std::filesystem::path& path) {
  if (!is_held(path)) return;
  throw Error(ErrorKind::kBusy, "{}={} is in use: it is mounted, or another device is built on it",
              option, path.native());
}

void require_size(const char* option, const std::filesystem::path& path, std::uint64_t least) {
  const std::uint64_t size = block_device_size(path);
  if (size >= least) return;
  throw Error(ErrorKind::kInvalidArgument, "{}={} is too small: it has {} and needs at least {}",
              option, path.native(), format_size(size), format_size(least));
}

void require_no_data(const std::filesystem::path& data_device,
                     const std::filesystem::path& metadata_device) {
  require_empty("dm.datadev", data_device);
  require_empty("dm.metadatadev", metadata_device);
  require_no_pool_data(data_device);
  require_no_metadata(metadata_device);
}

std::filesystem::path choose_device(const char* option,
                                    const std::optional<std::filesystem::path>& given,
                                    const std::filesystem::path& known, std::uint64_t known_size,
                                    Growth growth) {
  const std::filesystem::path& path = given ? *given : known;
  // A loop device that is detached is still there, with size 0.
  if (!given && (!block_device_number(path) || block_device_size(path) < known_size ||
                 (growth == Growth::kNo && block_device_size(path) != known_size))) {
    throw Error(ErrorKind::kInvalidArgument,
                "the pool's device {} is not there, or is another one now; attach the pool's, or "
                "if it has another name, "
                "give that with {}=",
                path.native(), option);
  }
  require_block_device(option, path);
  const std::uint64_t size = block_device_size(path);
  if (size < known_size || (size > known_size && growth == Growth::kNo)) {
    throw Error(ErrorKind::kInvalidArgument,
                "{}={} contradicts this root: it has {} bytes, and the pool's device had {}; give "
                "the device that the "
                "pool was made on",
                option, path.native(), size, known_size);
  }
  return path;
}

void check_active(const char* option, const std::filesystem::path& path, dev_t used) {
  if (block_device_number(path) == used) return;
  throw Error(ErrorKind::kInvalidArgument,
              "{}={} contradicts the running pool, which uses device {}:{}", option, path.native(),
              major(used), minor(used));
}

}  // namespace convoy
