// How full the pool is: from where on that is warned of, and from where on it takes nothing new.
#pragma once

#include <string>

#include "devmapper/thin_pool.h"

namespace convoy {

enum class SpaceLevel { kEnough, kLow, kRefusing };

struct PoolSpace {
  SpaceLevel level = SpaceLevel::kEnough;
  std::string used;  // of the fuller device: "83 percent of the data device are used"
};

// `low_watermark` in percent, below kRefusalPercent.
PoolSpace examine_space(const PoolStatus& status, unsigned low_watermark);

// Throws kNoSpace, saying what to do, if the pool is used to kRefusalPercent or more; as
// require_writable does if it can't be changed at all.
void require_room(const PoolStatus& status);

}  // namespace convoy
