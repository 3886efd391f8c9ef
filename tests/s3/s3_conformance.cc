// The suite of src/objectstore/object_store_conformance_test.cc on a server of S3: the bucket
// "conformance" at AWS_ENDPOINT_URL, with the keys of the environment. Each test has a path of its
// own. S3_TEST_PAUSE_MS is the first pause after a failure, S3_TEST_STALL_SECONDS how long a
// transfer may stand still.
#include "base/uuid.h"
#include "objectstore/object_store_conformance.h"
#include "objectstore/s3_store.h"

namespace convoy {
namespace {

int setting(const char* name, int otherwise) {
  const auto value = process_environment(name);
  return value ? std::stoi(*value) : otherwise;
}

std::shared_ptr<ObjectStore> make_store_under_a_new_path() {
  const S3Location location{
      .bucket = "conformance",
      .region = "",
      .path = R"(odd path+(1)&/ä%41?#'"*~;=@<>,!:[]^`{|}$\/)" + random_hex(16) + "/"};
  S3Options options = resolve_s3(location, "s3://conformance/", "", {}, process_environment);
  options.http.stall_timeout = std::chrono::seconds(setting("S3_TEST_STALL_SECONDS", 30));
  return std::make_shared<S3Store>(std::move(options), process_environment, nullptr,
                                   std::stop_token(),
                                   std::chrono::milliseconds(setting("S3_TEST_PAUSE_MS", 200)));
}

INSTANTIATE_TEST_SUITE_P(S3, ObjectStoreConformance, testing::Values(&make_store_under_a_new_path));

}  // namespace
}  // namespace convoy
