// jobs, jobs cancel
#include <fmt/format.h>

#include "base/size.h"
#include "cli/commands.h"
#include "cli/table.h"

namespace convoy {
namespace {

// As all of Convoy's JSON, with texts only.
Json with_texts(const Json& job) {
  Json texts = Json::object();
  for (const auto& [field, value] : job.items())
    texts[field] = value.is_string() ? value : Json(value.dump());
  return texts;
}

TableRow row_of(const Json& job) {
  const auto size = [&](const char* field) {
    return format_size(job.value(field, std::uint64_t{0}));
  };
  return {job.value("ID", ""),
          job.value("Kind", ""),
          job.value("Object", ""),
          job.value("State", ""),
          size("BytesDone") + " of " + size("BytesTotal"),
          size("BytesPerSecond") + "/s",
          job.contains("SecondsLeft") ? job["SecondsLeft"].dump() + " s" : ""};
}

}  // namespace

void run_jobs(Client& client, ListForm form) {
  const Json jobs = client.call({"GET", "/v1/jobs"});
  if (form == ListForm::kJson) {
    Json by_id = Json::object();
    for (const Json& job : jobs) by_id[job.value("ID", "")] = with_texts(job);
    return print_json(by_id);
  }
  std::vector<TableRow> rows;
  for (const Json& job : jobs) rows.push_back(row_of(job));
  fmt::print("{}", format_table({"ID", "KIND", "OBJECT", "STATE", "DONE", "RATE", "LEFT"}, rows));
}

void run_job_cancel(Client& client, const std::string& id) {
  client.call({"DELETE", "/v1/job", {{"id", id}}});
  fmt::print("\n");
}

}  // namespace convoy
