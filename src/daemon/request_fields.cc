#include "daemon/request_fields.h"

namespace convoy {
namespace {

std::string text_of(const std::string& field, const nlohmann::json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  throw Error(ErrorKind::kInvalidArgument, "the field {} of the request is not a text", field);
}

}  // namespace

RequestFields::RequestFields(const std::string& body) {
  try {
    // Docker sends no body with calls that need none.
    fields_ = body.empty() ? nlohmann::json::object() : nlohmann::json::parse(body);
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorKind::kInvalidArgument, "the request's body is not JSON");
  }
  if (!fields_.is_object())
    throw Error(ErrorKind::kInvalidArgument, "the request's body is not a JSON object");
}

std::string RequestFields::text(const std::string& field) const {
  const auto found = fields_.find(field);
  return found == fields_.end() ? "" : text_of(field, *found);
}

bool RequestFields::flag(const std::string& field) const {
  const auto found = fields_.find(field);
  if (found == fields_.end() || found->is_null()) return false;
  if (found->is_boolean()) return found->get<bool>();
  throw Error(ErrorKind::kInvalidArgument, "the field {} of the request is not true or false",
              field);
}

std::map<std::string, std::string> RequestFields::texts(const std::string& field) const {
  std::map<std::string, std::string> texts;
  const auto found = fields_.find(field);
  if (found == fields_.end() || found->is_null()) return texts;
  if (!found->is_object())
    throw Error(ErrorKind::kInvalidArgument, "the field {} of the request is not an object", field);
  for (const auto& [name, value] : found->items()) texts[name] = text_of(name, value);
  return texts;
}

std::string to_text(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string error_text(const Error& error) {
  return to_text({{"Error", error.message()}, {"Kind", to_string(error.kind())}});
}

}  // namespace convoy
