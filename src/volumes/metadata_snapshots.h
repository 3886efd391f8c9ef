// The pool's one metadata snapshot, shared by the readers that it serves and queued for by those it
// is too old for.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "devmapper/thin_pool.h"

namespace convoy {

class MetadataSnapshots {
 public:
  explicit MetadataSnapshots(ThinPool& pool) : pool_(pool) {}

  // While one of these lives, the pool's metadata snapshot is held. Must not outlive the
  // MetadataSnapshots.
  class Hold {
   public:
    explicit Hold(MetadataSnapshots& owner) : owner_(&owner) {}
    Hold(Hold&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
    Hold& operator=(Hold&&) = delete;
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
      if (owner_ != nullptr) owner_->release();
    }

   private:
    MetadataSnapshots* owner_;
  };

  // Holds metadata in which every device is that the pool had before its transaction id became
  // greater than `transaction_id`. Waits while an older snapshot is held by others. Throws
  // kUnavailable if the pool is read-only. Thread-safe.
  Hold hold(std::uint64_t transaction_id);

 private:
  void release();

  ThinPool& pool_;
  std::mutex lock_;
  std::condition_variable released_;
  unsigned holders_ = 0;
  std::uint64_t held_transaction_ = 0;
};

}  // namespace convoy
