#include "volumes/device_name.h"

#include "base/error.h"
#include "base/name.h"
#include "base/uuid.h"

namespace convoy {

void check_device_name(const char* what, const std::string& name, const std::string& pool_name) {
  check_name(what, name);
  if (Uuid::parse(name)) {
    throw Error(ErrorKind::kInvalidArgument, "'{}' can't be the name of a {}: it is a UUID", name,
                what);
  }
  const std::string work_prefix = pool_name + "-";
  const bool work_device =
      name.starts_with(work_prefix) && Uuid::parse(name.substr(work_prefix.size()));
  if (name == pool_name || name == "control" || work_device) {
    throw Error(ErrorKind::kInvalidArgument,
                "'{}' can't be the name of a {}: it is taken under /dev/mapper", name, what);
  }
}

}  // namespace convoy
