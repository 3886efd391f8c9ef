// Volumes that are being created. Docker gives a call up after a minute or two and asks again;
// mkfs, and a restore all the more, may take longer. So the work goes on when Docker has left, and
// whoever asks for the same waits for it. The command line's ends with its client, who wants a
// volume that was not there before.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "daemon/backups.h"
#include "daemon/jobs.h"
#include "volumes/volumes.h"

namespace convoy {

// Thread-safe.
class Creations {
 public:
  Creations(Volumes& volumes, Backups& backups, Jobs& jobs)
      : volumes_(volumes), backups_(backups), jobs_(jobs) {}

  struct Request {
    NewVolume volume;
    StoreAddress backup;  // without a URL: an empty volume
    Backups::OnDamage on_damage = Backups::OnDamage::kFail;
  };

  // Makes the volume, unless it is there, and waits until it is. A volume that is there, or being
  // made, must be what the request asks for, as far as it says; else throws kAlreadyExists, or
  // kBusy. Throws what the creation failed with.
  void create(const Request& request);

  // Starts to make a volume, under a name of its own if the request gives none. That there is one
  // of its name is the job's failure; that one is being made throws kBusy. The job's result is the
  // volume as 'inspect' shows it.
  std::shared_ptr<Job> start(Request request);

  // How far the creation of this volume is, in a few words; nothing if it isn't being made.
  std::optional<std::string> progress(const std::string& name);

 private:
  struct Creation {
    Request request;
    std::shared_ptr<Job> job;
  };
  struct Joined {
    std::shared_ptr<Job> job;  // null: the volume is there
    bool is_anothers = false;  // whoever began it may cancel it
  };
  Joined start_or_join(const Request& request);
  std::shared_ptr<Job> start_locked(const Request& request);
  // Those that have ended are forgotten, and one of this name that was cancelled is waited for:
  // whoever sees that its volume is gone may make it again.
  void settle(std::unique_lock<std::mutex>& lock, const std::string& name);

  Volumes& volumes_;
  Backups& backups_;
  Jobs& jobs_;

  std::mutex lock_;
  std::map<std::string, Creation> running_;  // by name; those that have ended are removed later
};

// The volume of just this name: one whose UUID begins with it is not meant.
std::optional<VolumeView> find_by_name(Volumes& volumes, const std::string& name);

}  // namespace convoy
