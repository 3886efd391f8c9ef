// One lock per volume or snapshot, so that slow work on one keeps nobody from another.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "base/uuid.h"

namespace convoy {

class ObjectLocks {
 public:
  // Held until it is destroyed.
  class Lock {
   public:
    explicit Lock(std::shared_ptr<std::mutex> mutex) : mutex_(std::move(mutex)), lock_(*mutex_) {}

   private:
    std::shared_ptr<std::mutex> mutex_;
    std::unique_lock<std::mutex> lock_;
  };

  // Waits for whoever works on this one. Thread-safe.
  Lock lock(const Uuid& object) {
    std::shared_ptr<std::mutex> mutex;
    {
      const std::lock_guard guard(lock_);
      std::erase_if(mutexes_, [](const auto& entry) { return entry.second.expired(); });
      mutex = mutexes_[object].lock();
      if (!mutex) {
        mutex = std::make_shared<std::mutex>();
        mutexes_[object] = mutex;
      }
    }
    return Lock(std::move(mutex));
  }

 private:
  std::mutex lock_;
  std::map<Uuid, std::weak_ptr<std::mutex>> mutexes_;
};

}  // namespace convoy
