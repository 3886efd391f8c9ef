// The command line's API: HTTP requests to calls on volumes, backups and jobs. docs/api.md
// describes it.
#pragma once

#include "daemon/backups.h"
#include "daemon/creations.h"
#include "daemon/http_server.h"
#include "daemon/jobs.h"
#include "daemon/settings.h"
#include "volumes/volumes.h"

namespace convoy {

// Thread-safe.
class Api {
 public:
  Api(GeneralSettings settings, Volumes& volumes, Backups& backups, Creations& creations,
      Jobs& jobs);

  // Never throws: an error is an answer {"Error", "Kind"} with the kind's HTTP status.
  HttpResponse handle(const HttpRequest& request) const;

 private:
  using Handler = HttpResponse (Api::*)(const HttpRequest&) const;
  struct Route {
    const char* method;
    const char* path;
    Handler handler;
  };

  HttpResponse grow_pool(const HttpRequest& request) const;
  HttpResponse info(const HttpRequest& request) const;
  HttpResponse list_volumes(const HttpRequest& request) const;
  HttpResponse inspect_volume(const HttpRequest& request) const;
  HttpResponse create_volume(const HttpRequest& request) const;
  HttpResponse restore_volume(const HttpRequest& request) const;
  HttpResponse delete_volume(const HttpRequest& request) const;
  HttpResponse mount_volume(const HttpRequest& request) const;
  HttpResponse unmount_volume(const HttpRequest& request) const;
  HttpResponse trim_volume(const HttpRequest& request) const;
  HttpResponse create_snapshot(const HttpRequest& request) const;
  HttpResponse inspect_snapshot(const HttpRequest& request) const;
  HttpResponse delete_snapshot(const HttpRequest& request) const;
  HttpResponse create_backup(const HttpRequest& request) const;
  HttpResponse list_backups(const HttpRequest& request) const;
  HttpResponse inspect_backup(const HttpRequest& request) const;
  HttpResponse delete_backup(const HttpRequest& request) const;
  HttpResponse verify_backup(const HttpRequest& request) const;
  HttpResponse collect_garbage(const HttpRequest& request) const;
  HttpResponse unlock_backups(const HttpRequest& request) const;
  HttpResponse list_jobs(const HttpRequest& request) const;
  HttpResponse cancel_job(const HttpRequest& request) const;

  GeneralSettings settings_;
  Volumes& volumes_;
  Backups& backups_;
  Creations& creations_;
  Jobs& jobs_;
};

}  // namespace convoy
