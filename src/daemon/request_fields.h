// The JSON objects that requests bring, and the texts that answers are.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace convoy {

// A request's body. A field of another type than the one asked for, and a body that is no JSON
// object, throw kInvalidArgument.
class RequestFields {
 public:
  explicit RequestFields(const std::string& body);

  // A field's text; empty if it is absent or null.
  std::string text(const std::string& field) const;

  // True or false; false if it is absent or null.
  bool flag(const std::string& field) const;

  // An object's fields, each a text; none if it is absent or null.
  std::map<std::string, std::string> texts(const std::string& field) const;

 private:
  nlohmann::json fields_;
};

// Names and paths from outside may not be UTF-8; what isn't is replaced.
std::string to_text(const nlohmann::ordered_json& json);

// {"Error": message, "Kind": kind}
std::string error_text(const Error& error);

}  // namespace convoy
