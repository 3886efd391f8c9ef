// Commands that take several objects do not stop at the first that fails.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"

namespace convoy {

// Calls `action` for each name. A failure is printed on standard error and the rest still tried; at
// the end the last failure is thrown.
template <typename Action>
void for_each(const std::vector<std::string>& names, Action&& action) {
  std::optional<Error> last;
  for (const std::string& name : names) {
    try {
      action(name);
    } catch (const Error& error) {
      if (last) fmt::print(stderr, "convoy: {}\n", last->message());
      last = error;
    }
  }
  if (last) throw Error(*last);
}

}  // namespace convoy
