// The examples of Amazon's S3 API reference, "Signature Calculations for the Authorization Header:
// Transferring Payload in a Single Chunk".
#include "objectstore/s3_signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"

namespace convoy {
namespace {

using testing::EndsWith;

const S3Credentials kCredentials{.access_key = "AKIAIOSFODNN7EXAMPLE",
                                 .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                 .session_token = ""};
const Timestamp kTime = parse_rfc3339("2013-05-24T00:00:00.000Z").value();

S3Request request_of(const std::string& method, const std::string& path) {
  return {.method = method,
          .path = encode_uri(path, Slash::kKept),
          .headers = {{"host", "examplebucket.s3.amazonaws.com"}},
          .payload = sha256({})};
}

std::string signature_of(S3Request request) {
  sign(request, kCredentials, "us-east-1", kTime);
  return request.headers.at("authorization");
}

TEST(S3Signature, OfGettingARange) {
  S3Request request = request_of("GET", "/test.txt");
  request.headers["range"] = "bytes=0-9";
  EXPECT_EQ(signature_of(request),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3Signature, OfPuttingAnObjectWithAnOddName) {
  S3Request request = request_of("PUT", "/test$file.text");
  request.headers["date"] = "Fri, 24 May 2013 00:00:00 GMT";
  request.headers["x-amz-storage-class"] = "REDUCED_REDUNDANCY";
  request.payload = sha256(as_bytes("Welcome to Amazon S3."));
  EXPECT_THAT(signature_of(request),
              EndsWith("98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));
}

TEST(S3Signature, OfAQueryWithoutValue) {
  S3Request request = request_of("GET", "/");
  request.query["lifecycle"] = "";
  EXPECT_THAT(signature_of(request),
              EndsWith("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
}

TEST(S3Signature, OfAListing) {
  S3Request request = request_of("GET", "/");
  request.query = {{"prefix", "J"}, {"max-keys", "2"}};
  EXPECT_THAT(signature_of(request),
              EndsWith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));

  request.headers["x-amz-content-sha256"] = to_hex(request.payload);
  request.headers["x-amz-date"] = "20130524T000000Z";
  EXPECT_EQ(
      canonical_request(request),
      "GET\n/\nmax-keys=2&prefix=J\nhost:examplebucket.s3.amazonaws.com\n"
      "x-amz-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
      "x-amz-date:20130524T000000Z\n\nhost;x-amz-content-sha256;x-amz-date\n"
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(string_to_sign(request, "us-east-1", kTime),
            "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n"
            "df57d21db20da04d7fa30298dd4488ba3a2b47ca3a489c74750e0f1e7df1b9b7");
}

TEST(S3Signature, CoversTheSessionToken) {
  S3Credentials temporary = kCredentials;
  temporary.session_token = "token";
  S3Request request = request_of("GET", "/");
  sign(request, temporary, "us-east-1", kTime);
  EXPECT_EQ(request.headers.at("x-amz-security-token"), "token");
  EXPECT_THAT(request.headers.at("authorization"), testing::HasSubstr(";x-amz-security-token,"));
}

TEST(S3Signature, EncodesWhatIsNotUnreserved) {
  EXPECT_EQ(encode_uri("a/b c+~!*'()é", Slash::kKept), "a/b%20c%2B~%21%2A%27%28%29%C3%A9");
  EXPECT_EQ(encode_uri("a/b", Slash::kEncoded), "a%2Fb");
  EXPECT_EQ(encode_query({{"prefix", "a/b="}, {"delete", ""}}), "delete=&prefix=a%2Fb%3D");
}

}  // namespace
}  // namespace convoy
