// How a destination in S3 is reached, and how objects are kept there.
#pragma once

#include <string>

#include "objectstore/environment.h"
#include "objectstore/http_client.h"
#include "objectstore/ini_file.h"

namespace convoy {

// "s3://bucket@region/path/", or without "@region".
struct S3Location {
  std::string bucket;
  std::string region;  // empty: not said
  std::string path;    // empty, or with '/' at its end; not encoded

  bool operator==(const S3Location&) const = default;
};

struct S3Options {
  enum class Addressing { kPath, kVirtualHost };

  std::string bucket;
  std::string region;
  std::string path;              // before every key
  std::string scheme = "https";  // of the server
  std::string host;              // and its port
  Addressing addressing = Addressing::kVirtualHost;
  std::string profile;        // of AWS's files; empty: whatever the environment says
  std::string storage_class;  // empty: the bucket's
  std::string encryption;     // empty, "AES256" or "aws:kms"
  std::string kms_key;        // empty: the account's own
  HttpOptions http;

  bool operator==(const S3Options&) const = default;
};

// All that is known of a destination whose URL is `url`. `endpoint` is what the user gave with this
// command, or empty. It counts before `settings`, which are those of s3.conf; they count before the
// environment and AWS's files. Throws kInvalidArgument, with what to change, for what can't be.
//
// s3.conf has sections named by URLs, such as [s3://bucket@region/]: of those that the
// destination's URL begins with, the longest counts, and [default] for what it does not say. A
// section without a region is for all regions; a URL without one has the environment's. Others than
// such sections are refused: what was meant for them would be without their encryption.
S3Options resolve_s3(const S3Location& location, const std::string& url,
                     const std::string& endpoint, const IniFile& settings,
                     const Environment& environment);

}  // namespace convoy
