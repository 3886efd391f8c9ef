#include "objectstore/s3_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"

namespace convoy {
namespace {

using testing::HasSubstr;

S3Options options() {
  S3Options options;
  options.bucket = "bucket";
  options.region = "us-east-1";
  options.host = "s3.example";
  return options;
}

HttpClient::Response answer(long status, const std::string& xml,
                            std::map<std::string, std::string> headers = {}) {
  const auto bytes = as_bytes(xml);
  return {.status = status, .headers = std::move(headers), .body = {bytes.begin(), bytes.end()}};
}

HttpClient::Response answer_of(long status, const std::string& code, const std::string& more = "") {
  return answer(status,
                "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code>" + more + "</Error>");
}

std::string message(const HttpClient::Response& response) {
  return s3_error(response, options()).message();
}

TEST(S3Error, SaysInWhichRegionTheBucketIs) {
  const char* const advice = "but in 'eu-west-1': write s3://bucket@eu-west-1/";
  EXPECT_THAT(message(answer_of(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>")),
              HasSubstr(advice));
  EXPECT_THAT(message(answer(301, "", {{"x-amz-bucket-region", "eu-west-1"}})), HasSubstr(advice));
  EXPECT_THAT(message(answer(301, "")), HasSubstr("write s3://bucket@REGION/"));
  EXPECT_THAT(message(answer_of(301, "PermanentRedirect", "<Endpoint>other.example</Endpoint>")),
              HasSubstr("is served at other.example, not at https://s3.example"));
  for (const long status : {301L, 302L, 307L, 308L})
    EXPECT_THAT(message(answer(status, "", {{"location", "https://bucket.other:9000/bucket/x?y"}})),
                HasSubstr("is served at https://other:9000, not at https://s3.example: give that "
                          "with --s3-endpoint"));
  EXPECT_THAT(message(answer_of(400, "AuthorizationHeaderMalformed", "<Message>why</Message>")),
              HasSubstr("the signature of the region 'us-east-1': why"));
}

TEST(S3Error, SaysWhatToChange) {
  EXPECT_THAT(message(answer_of(404, "NoSuchBucket")),
              HasSubstr("no bucket 'bucket' at s3.example"));
  EXPECT_THAT(message(answer_of(403, "InvalidAccessKeyId")), HasSubstr("AWS_ACCESS_KEY_ID"));
  EXPECT_THAT(message(answer_of(403, "SignatureDoesNotMatch")), HasSubstr("AWS_SECRET_ACCESS_KEY"));
  EXPECT_THAT(message(answer_of(403, "InvalidObjectState")), HasSubstr("is in an archive"));
  EXPECT_THAT(message(answer_of(403, "AccessDenied", "<Message>no\x1b[1m</Message>")),
              HasSubstr("s3:ListBucket for the bucket 'bucket' (no [1m)"));
  EXPECT_THAT(message(answer_of(400, "ExpiredToken")), HasSubstr("get new ones"));
  EXPECT_THAT(message(answer(400, "<html>a proxy</html>")), HasSubstr("is it an S3 server?"));
  EXPECT_EQ(s3_error(answer_of(403, "QuotaExceeded"), options()).kind(), ErrorKind::kNoSpace);
}

TEST(S3Error, TellsByHowMuchTheClocksDiffer) {
  HttpClient::Response response = answer_of(403, "RequestTimeTooSkewed");
  response.headers["date"] = "Fri, 24 May 2013 00:00:00 GMT";
  EXPECT_THAT(message(response), HasSubstr("minutes"));
  EXPECT_THAT(message(response), testing::Not(HasSubstr(" 0 minutes")));
}

TEST(S3Error, KnowsWhatPasses) {
  for (const long status : {408L, 429L, 500L, 502L, 503L, 504L})
    EXPECT_TRUE(is_transient(answer(status, "whatever"), ""));
  EXPECT_TRUE(is_transient(answer_of(400, "RequestTimeout"), "RequestTimeout"));
  for (const long status : {301L, 400L, 403L, 404L})
    EXPECT_FALSE(is_transient(answer(status, ""), ""));
  EXPECT_EQ(s3_error_code(answer_of(503, "SlowDown")), "SlowDown");
  EXPECT_EQ(s3_error_code(answer(503, "<Error><Code>")), "");
}

}  // namespace
}  // namespace convoy
