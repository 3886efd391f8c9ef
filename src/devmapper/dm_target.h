#pragma once

#include <string>

#include "base/units.h"

namespace convoy {

// The only line of a device's table or status.
struct DmTarget {
  Sectors length;
  std::string type;
  std::string parameters;
};

}  // namespace convoy
