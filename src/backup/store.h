// One backup store: what a destination holds in our format, known by the UUID in its store.json.
#pragma once

#include <chrono>
#include <optional>

#include "base/limits.h"
#include "base/uuid.h"
#include "objectstore/object_store.h"

namespace convoy {

// The time limits of working together on a store. All who use a store must have the same; tests
// have shorter ones.
struct StoreTimes {
  std::chrono::milliseconds lease_duration = kLeaseDuration;
  std::chrono::milliseconds lease_renewal = kLeaseRenewal;
  std::chrono::milliseconds garbage_grace = kGarbageGrace;
  std::chrono::milliseconds revocation_age = kRevocationAge;
  std::chrono::milliseconds clock_patience = kClockPatience;
};

// Thread-safe, and cheap to copy.
class Store {
 public:
  // `objects` must outlive the store. Throws kNotFound if the destination holds no store,
  // kUnsupported if it holds one of another version, digest or encryption, kCorrupt if its
  // store.json is damaged or lost.
  static Store open(ObjectStore& objects, const StoreTimes& times = {});

  // As open, but makes a store where there is none. Who remembers that the destination held the
  // store `expected` is refused with kUnavailable if that one is not there: the destination is
  // probably not mounted.
  static Store open_or_create(ObjectStore& objects, const std::optional<Uuid>& expected,
                              const StoreTimes& times = {});

  ObjectStore& objects() const { return *objects_; }
  const Uuid& uuid() const { return uuid_; }
  const StoreTimes& times() const { return times_; }

 private:
  Store(ObjectStore& objects, const Uuid& uuid, const StoreTimes& times)
      : objects_(&objects), uuid_(uuid), times_(times) {}

  ObjectStore* objects_;
  Uuid uuid_;
  StoreTimes times_;
};

}  // namespace convoy
