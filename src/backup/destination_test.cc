#include "backup/destination.h"

#include <filesystem>

#include "backup/backup_testing.h"
#include "base/bytes.h"

namespace convoy {
namespace {

using testing::HasSubstr;

constexpr char kBackup[] = "01a2071d-1f56-7eb7-ac3c-6a2834722a13";
constexpr char kLineage[] = "01a2071d-22ba-7a90-b3f6-c87d1f5f3b4e";

DirectoryLocation directory_of(std::string_view url) {
  return std::get<DirectoryLocation>(Destination::parse(url).location);
}

TEST(Destination, IsAnAbsolutePath) {
  EXPECT_EQ(directory_of("vfs:///mnt/backup/"), "/mnt/backup/");
  EXPECT_EQ(directory_of("vfs:///mnt/backup"), "/mnt/backup/");
  EXPECT_EQ(directory_of("vfs:////mnt//backup//"), "/mnt/backup/");
  EXPECT_EQ(directory_of("vfs:///"), "/");
  EXPECT_EQ(directory_of("vfs:///a%20b%3f/%C3%A4"), "/a b?/\xc3\xa4/");
  EXPECT_EQ(directory_of("vfs:///a b"), "/a b/");
}

TEST(Destination, PrintsWhatParsesToTheSame) {
  for (const char* const path : {"/", "/mnt/backup/", "/a b/", "/100%/", "/a?b#c&d/",
                                 "/\xc3\xa4\n/", "/~user/x:y@z+1,2=3/"}) {
    const Destination destination{DirectoryLocation(path)};
    EXPECT_EQ(Destination::parse(destination.to_string()), destination) << path;
  }
  EXPECT_EQ(Destination{DirectoryLocation("/a b/100%/")}.to_string(), "vfs:///a%20b/100%25/");
}

TEST(Destination, RefusesWhatIsNone) {
  for (const char* const url :
       {"", "/mnt/backup", "vfs:/mnt", "vfs://", "vfs://mnt/backup", "file:///mnt", "VFS:///mnt",
        "vfs:///a/../b", "vfs:///a/./b", "vfs:///%2e%2e/b", "vfs:///a%", "vfs:///a%2", "vfs:///%zz",
        "vfs:///a%00b", "vfs:///a?backup=x", "vfs:///a#b"}) {
    const Error error = error_of([&] { Destination::parse(url); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << url;
    EXPECT_THAT(error.message(), HasSubstr("vfs:///path/")) << url;
  }
}

TEST(Destination, IsAPathInABucket) {
  EXPECT_EQ(Destination::parse("s3://bucket@eu-central-1/a/b"),
            (Destination{S3Location{"bucket", "eu-central-1", "a/b/"}}));
  EXPECT_EQ(Destination::parse("s3://my.bucket-1"),
            (Destination{S3Location{"my.bucket-1", "", ""}}));
  EXPECT_EQ(Destination::parse("s3://bucket//a%20b//"),
            (Destination{S3Location{"bucket", "", "a b/"}}));
  for (const char* const url :
       {"s3://bucket/", "s3://bucket@r-1/", "s3://bucket@r-1/a%20%3Fb/%C3%A4/"})
    EXPECT_EQ(Destination::parse(url).to_string(), url);
  for (const char* const url :
       {"s3://", "s3:///path/", "s3://b/", "s3://Bucket/", "s3://bucket@/", "s3://bucket@EU/",
        "s3://-bucket/", "s3://buc..ket/", "s3://bucket/../x", "s3://bucket/?x=y", "s3://bucket/%",
        "s3://user:password@bucket/", "s3://bucket/%FF/", "s3://bucket/a\xC3/", "s3://bucket/%0A/"})
    EXPECT_EQ(error_of([&] { Destination::parse(url); }).kind(), ErrorKind::kInvalidArgument)
        << url;
  const Error error = error_of([] { Destination::parse("s3://user:password@bucket/"); });
  EXPECT_THAT(error.message(), testing::Not(HasSubstr("password")));
}

TEST(Destination, IsAnExistingDirectoryWhenItIsOpened) {
  const std::filesystem::path directory =
      std::filesystem::path(testing::TempDir()) / ("destination-" + random_hex(16));
  const Destination destination = Destination::parse("vfs://" + directory.native());
  const Error error = error_of([&] { Destinations().open(destination); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr("is not an existing directory"));

  std::filesystem::create_directory(directory);
  Destinations().open(destination).objects->put("convoy/x", as_bytes("text"));
  EXPECT_TRUE(std::filesystem::exists(directory / "convoy/x"));
  std::filesystem::remove_all(directory);
}

TEST(BackupUrl, NamesBackupAndLineage) {
  const std::string text = fmt::format("vfs:///mnt/b/?backup={}&volume={}", kBackup, kLineage);
  const BackupUrl url = BackupUrl::parse(text);
  EXPECT_EQ(url.destination, Destination::parse("vfs:///mnt/b/"));
  EXPECT_EQ(url.backup.to_string(), kBackup);
  EXPECT_EQ(url.lineage.to_string(), kLineage);
  EXPECT_EQ(url.to_string(), text);
}

TEST(BackupUrl, TakesTheOtherFormsThatPeopleHave) {
  const BackupUrl url{Destination::parse("vfs:///mnt/b/"), *Uuid::parse(kBackup),
                      *Uuid::parse(kLineage)};
  for (const char* const form :
       {"vfs:///mnt/b/?backup={0}\\u0026volume={1}", "vfs:///mnt/b?backup={0}&volume={1}",
        "vfs:///mnt/b/?volume={1}&backup={0}"}) {
    EXPECT_EQ(BackupUrl::parse(fmt::format(fmt::runtime(form), kBackup, kLineage)), url) << form;
  }
}

TEST(BackupUrl, NamesBackupsOfRancherConvoy) {
  const char* const text = "vfs:///mnt/b/?backup=backup-0a05bad14b0e4dd4&volume=db";
  const BackupUrl url = BackupUrl::parse(text);
  ASSERT_TRUE(url.convoy);
  EXPECT_EQ(url.convoy->backup, "backup-0a05bad14b0e4dd4");
  EXPECT_EQ(url.convoy->volume, "db");
  EXPECT_EQ(url.to_string(), text);
  EXPECT_EQ(BackupUrl::parse("vfs:///mnt/b/?volume=db\\u0026backup=backup-0a05bad14b0e4dd4"), url);
  EXPECT_NE(BackupUrl::parse("vfs:///mnt/b/?backup=backup-0a05bad14b0e4dd4&volume=d").backup,
            url.backup);
}

TEST(BackupUrl, RefusesWhatNamesNoBackup) {
  for (const char* const form :
       {"vfs:///mnt/", "vfs:///mnt/?", "vfs:///mnt/?backup={0}", "vfs:///mnt/?volume={1}",
        "vfs:///mnt/?backup={0}&volume=db",
        "vfs:///mnt/?backup=backup-0123456789abcdef&volume=../x", "vfs:///mnt/?backup=x&volume=y",
        "vfs:///mnt/?backup={0}&volume={1}&x=y", "vfs:///mnt/?backup={0}&backup={0}&volume={1}",
        "vfs:///mnt/?backup={0}&&volume={1}", "vfs:///mnt/?backup&volume={1}",
        "?backup={0}&volume={1}"}) {
    const std::string url = fmt::format(fmt::runtime(form), kBackup, kLineage);
    EXPECT_EQ(error_of([&] { BackupUrl::parse(url); }).kind(), ErrorKind::kInvalidArgument) << url;
  }
}

}  // namespace
}  // namespace convoy
