// Where what a request to S3 needs comes from.
#include "objectstore/s3_options.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/uuid.h"
#include "objectstore/s3_credentials.h"

namespace convoy {
namespace {

using testing::HasSubstr;

class S3OptionsTest : public testing::Test {
 protected:
  S3OptionsTest() {
    std::filesystem::create_directories(home_ / ".aws");
    variables_["HOME"] = home_.native();
    variables_["AWS_EC2_METADATA_DISABLED"] = "true";
  }
  ~S3OptionsTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(home_, ignored);
  }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(home_ / ".aws" / name) << text;
  }

  Environment environment() const {
    return [variables = variables_](const char* name) {
      const auto found = variables.find(name);
      return found == variables.end() ? std::nullopt : std::optional(found->second);
    };
  }

  S3Options resolve(const std::string& region = "", const std::string& endpoint = "",
                    const std::string& settings = "") {
    return resolve_s3({.bucket = "bucket", .region = region, .path = "p/"},
                      "s3://bucket@eu-central-1/p/", endpoint, parse_ini(settings), environment());
  }

  std::string refused(const std::function<void()>& action) {
    try {
      action();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.message();
    }
    ADD_FAILURE() << "nothing was refused";
    return "";
  }

  S3Credentials keys(const std::string& profile = "") {
    return S3CredentialSource(environment(), profile).get();
  }

  const std::filesystem::path home_ =
      std::filesystem::path(testing::TempDir()) / ("s3_options-" + random_hex(16));
  std::map<std::string, std::string> variables_;
};

TEST_F(S3OptionsTest, OfAmazonComeFromTheRegion) {
  EXPECT_EQ(resolve("eu-central-1").host, "s3.eu-central-1.amazonaws.com");
  EXPECT_EQ(resolve("cn-north-1").host, "s3.cn-north-1.amazonaws.com.cn");
  EXPECT_EQ(resolve("eu-central-1").addressing, S3Options::Addressing::kVirtualHost);
  EXPECT_EQ(resolve("eu-central-1").scheme, "https");
  EXPECT_THAT(refused([&] { resolve(); }), HasSubstr("write s3://bucket@REGION/"));
  write("config", "[default]\nregion = eu-north-1\n[profile other]\nregion = eu-west-3\n");
  EXPECT_EQ(resolve().region, "eu-north-1");
  variables_["AWS_PROFILE"] = "other";
  EXPECT_EQ(resolve().region, "eu-west-3");
  variables_["AWS_DEFAULT_REGION"] = "us-west-1";
  EXPECT_EQ(resolve().region, "us-west-1");
  variables_["AWS_REGION"] = "us-west-2";
  EXPECT_EQ(resolve().region, "us-west-2");
  EXPECT_EQ(resolve("eu-central-1").region, "eu-central-1");
}

TEST_F(S3OptionsTest, OfAnotherServerComeFromItsAddress) {
  const S3Options options = resolve("", "http://host:9000/");
  EXPECT_EQ(options.scheme, "http");
  EXPECT_EQ(options.host, "host:9000");
  EXPECT_EQ(options.region, "us-east-1");
  EXPECT_EQ(options.addressing, S3Options::Addressing::kPath);

  write("config", "[default]\nendpoint_url = https://profile\n");
  EXPECT_EQ(resolve().host, "profile");
  variables_["AWS_ENDPOINT_URL"] = "https://general";
  EXPECT_EQ(resolve().host, "general");
  variables_["AWS_ENDPOINT_URL_S3"] = "https://special";
  EXPECT_EQ(resolve().host, "special");
  EXPECT_EQ(resolve("", "", "[default]\nendpoint = https://settings").host, "settings");
  EXPECT_EQ(resolve("", "https://option", "[default]\nendpoint = https://settings").host, "option");
  for (const char* const endpoint :
       {"host", "ftp://host", "https://", "https://host/path", "https://u:p@host"})
    EXPECT_THAT(refused([&] { resolve("", endpoint); }),
                HasSubstr("https://host or http://host:port"));
}

TEST_F(S3OptionsTest, AreThoseOfTheLongestSectionAndThenTheDefaults) {
  const S3Options options =
      resolve("r", "",
              "# for all\n[default]\nconnections = 4\nstorage-class = A\n"
              "[s3://bucket@eu-central-1/]\nstorage-class = B\nencryption = aws:kms\n"
              "[s3://bucket@eu-central-1/p/]\nstorage-class = C\nupload-limit = 2M\n"
              "[s3://bucket@eu-central-1/p/q/]\nstorage-class = D\n");
  EXPECT_EQ(options.http.connections, 4U);
  EXPECT_EQ(options.storage_class, "C");
  EXPECT_EQ(options.http.upload_limit, 2U << 20U);
  EXPECT_EQ(options.encryption, "");
  for (const char* const settings :
       {"[default]\nstorageclass = A", "[bucket]\nstorage-class = A",
        "[default]\nstorage-class = DEEP_ARCHIVE", "[default]\nconnections = 0",
        "[default]\nconnections = 1x", "[default]\nencryption = rot13", "[default]\nkms-key-id = k",
        "[default]\naddressing = dns", "[default]\nupload-limit = fast"})
    refused([&] { resolve("r", "", settings); });
  EXPECT_THAT(refused([&] { resolve("r", "", "[a]\nsecret"); }), testing::Not(HasSubstr("secret")));
}

TEST_F(S3OptionsTest, OfASectionWithARegionCountForAUrlWithoutOne) {
  const auto encryption_of = [&](const std::string& url) {
    const IniFile settings = parse_ini("[s3://bucket@eu-central-1/]\nencryption = AES256\n");
    return resolve_s3({.bucket = "bucket", .region = "", .path = ""}, url, "https://host", settings,
                      environment())
        .encryption;
  };
  EXPECT_EQ(encryption_of("s3://bucket/"), "");
  variables_["AWS_REGION"] = "eu-central-1";
  EXPECT_EQ(encryption_of("s3://bucket/"), "AES256");
  EXPECT_EQ(encryption_of("s3://bucket2/"), "");
}

TEST_F(S3OptionsTest, KeysComeFromTheEnvironmentAndThenFromTheProfile) {
  EXPECT_THAT(refused([&] { keys(); }), HasSubstr("put them into /root/.aws/credentials"));
  write("config", "[profile work]\naws_access_key_id = config\naws_secret_access_key = s1\n");
  write("credentials",
        "[default]\naws_access_key_id = file\naws_secret_access_key = s2\naws_session_token = t2\n"
        "[sso]\nsso_session = x\n");
  EXPECT_EQ(keys(), (S3Credentials{"file", "s2", "t2"}));
  EXPECT_EQ(keys("work"), (S3Credentials{"config", "s1", ""}));
  variables_["AWS_PROFILE"] = "work";
  EXPECT_EQ(keys(), (S3Credentials{"config", "s1", ""}));
  variables_["AWS_PROFILE"] = "nobody";
  EXPECT_THAT(refused([&] { keys(); }), HasSubstr("has keys of the profile 'nobody'"));
  variables_["AWS_SHARED_CREDENTIALS_FILE"] = home_ / ".aws/others";
  write("others", "[nobody]\naws_access_key_id = other\naws_secret_access_key = s4\n");
  EXPECT_EQ(keys(), (S3Credentials{"other", "s4", ""}));
  variables_["AWS_ACCESS_KEY_ID"] = "environment";
  EXPECT_THAT(refused([&] { keys(); }), HasSubstr("only one is set"));
  variables_["AWS_SECRET_ACCESS_KEY"] = "s3";
  EXPECT_EQ(keys(), (S3Credentials{"environment", "s3", ""}));
  variables_["AWS_SESSION_TOKEN"] = "t3";
  EXPECT_EQ(keys(), (S3Credentials{"environment", "s3", "t3"}));
  EXPECT_EQ(keys("work"), (S3Credentials{"config", "s1", ""}));  // s3.conf names it
  EXPECT_THROW(keys("sso"), Error);
}

TEST_F(S3OptionsTest, KeysThatOtherToolsWouldTakeElsewhereAreNotReplacedSilently) {
  variables_["AWS_EC2_METADATA_DISABLED"] = "True";
  write("config", "[profile default]\naws_access_key_id = config\naws_secret_access_key = s\n");
  EXPECT_EQ(keys(), (S3Credentials{"config", "s", ""}));
  write("credentials", "[half]\naws_access_key_id = a\n");
  EXPECT_THAT(refused([&] { keys("half"); }), HasSubstr("has only one of"));
  variables_["AWS_WEB_IDENTITY_TOKEN_FILE"] = "/token";
  EXPECT_EQ(keys(), (S3Credentials{"config", "s", ""}));
  variables_["AWS_ROLE_ARN"] = "arn";
  EXPECT_THROW(keys(), Error);
  variables_.erase("AWS_ROLE_ARN");
  write("config", "");
  for (const char* const url : {"http://keys.example/", "http://169.254.170.2.example/",
                                "ftp://127.0.0.1/", "http://localhost:x@keys.example/"}) {
    variables_["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = url;
    EXPECT_THAT(refused([&] { keys(); }), HasSubstr("AWS_CONTAINER_CREDENTIALS_FULL_URI")) << url;
  }
}

}  // namespace
}  // namespace convoy
