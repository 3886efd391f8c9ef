// A job as an HTTP answer: a line of JSON a few times a second, {"Job": …}, and at its end
// {"Result": …} or {"Error": …, "Kind": …}.
#pragma once

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include "daemon/http_server.h"
#include "daemon/jobs.h"

namespace convoy {

// {"ID", "Kind", "Object", "BytesDone", "BytesTotal"}
nlohmann::ordered_json job_view(const Job& job);

// A client that leaves before the end cancels the job.
HttpResponse stream_job(std::shared_ptr<Job> job);

}  // namespace convoy
