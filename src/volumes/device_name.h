// Which names volumes and snapshots can have under /dev/mapper.
#pragma once

#include <string>

namespace convoy {

// Throws kInvalidArgument, saying why, if `name` breaks the rule for names, or would be taken for a
// UUID or for another device of the pool `pool_name`. `what` is the word for what is named.
void check_device_name(const char* what, const std::string& name, const std::string& pool_name);

}  // namespace convoy
