// Where the keys to S3 come from, in the order of AWS's own programs: the environment, the profile
// of AWS_PROFILE in ~/.aws/credentials and ~/.aws/config, the container's service, the instance's
// metadata service. ("Standardized credential providers", AWS SDKs and Tools Reference Guide)
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "base/time.h"
#include "objectstore/environment.h"
#include "objectstore/s3_signature.h"

namespace convoy {

// A value of the profile that counts: of `profile`, or of what AWS_PROFILE names, or of "default".
// From ~/.aws/credentials, and if it isn't there, from ~/.aws/config; nothing if in neither. Throws
// kInvalidArgument if a file can't be understood.
std::optional<std::string> profile_value(const Environment& environment, const std::string& profile,
                                         const std::string& key);

// Thread-safe.
class S3CredentialSource {
 public:
  // `profile` names one that counts before the environment's keys; empty: none.
  S3CredentialSource(Environment environment, std::string profile)
      : environment_(std::move(environment)), profile_(std::move(profile)) {}

  // The keys, fetched anew some minutes before they expire. Throws kInvalidArgument, with what to
  // set, if there are none; kUnavailable if the service that has them does not answer. As long as
  // the last ones are good, nothing is thrown.
  S3Credentials get();

  // The server said that these have expired: the next get() fetches others.
  void forget(const S3Credentials& expired);

 private:
  struct Expiring {
    S3Credentials credentials;
    std::optional<Timestamp> expiry;
  };
  Expiring find() const;
  std::optional<Expiring> from_environment() const;
  void refuse_web_identity() const;
  std::optional<Expiring> from_profile() const;
  std::optional<Expiring> from_container() const;
  std::optional<Expiring> from_instance() const;

  const Environment environment_;
  const std::string profile_;
  std::mutex mutex_;
  std::optional<Expiring> known_;
  Timestamp next_try_;
};

}  // namespace convoy
