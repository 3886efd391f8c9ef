// The rule for names of volumes and snapshots, checked wherever a name comes in.
#pragma once

#include <string_view>

namespace convoy {

// True for 1 to kMaxNameLength letters, digits, '_', '.' and '-' that start with a letter or digit.
// Such a name is safe as a file name, a device mapper name and a part of an object's key without
// any escaping.
bool is_valid_name(std::string_view name);

// Throws kInvalidArgument, saying the rule, if `name` does not follow it. `what` is the word for
// the thing that is named.
void check_name(std::string_view what, std::string_view name);

}  // namespace convoy
