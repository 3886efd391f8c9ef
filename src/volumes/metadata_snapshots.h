// The pool's one metadata snapshot, shared by the readers that it serves and queued for by those it
// is too old for.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "catalog/catalog.h"
#include "devmapper/thin_pool.h"
#include "thinmeta/metadata.h"

namespace convoy {

// Releases the metadata snapshot that a daemon held which was killed, if there is one. Throws
// kUnavailable if a power cut left it half taken (thinmeta/torn_hold.h) and somebody else has made
// the pool active since, or if that can't be told; and what pool and catalog throw.
void release_left_hold(Catalog& catalog, ThinPool& pool);

class MetadataSnapshots {
 public:
  MetadataSnapshots(Catalog& catalog, ThinPool& pool) : catalog_(catalog), pool_(pool) {}

  // While one of these lives, the metadata under root() don't change. Must not outlive the
  // MetadataSnapshots.
  class Hold {
   public:
    Hold(MetadataSnapshots& owner, Root root) : owner_(&owner), root_(root) {}
    Hold(Hold&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), root_(other.root_) {}
    Hold& operator=(Hold&&) = delete;
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
      if (owner_ != nullptr && root_ == Root::kHeld) owner_->release();
    }

    // kLive if the pool is read-only, and keeps its metadata as they are.
    Root root() const { return root_; }
    // To be called when they have been read. Throws kUnavailable if the pool was repaired
    // meanwhile.
    void check() const {
      if (root_ == Root::kLive) owner_->require_read_only();
    }

   private:
    MetadataSnapshots* owner_;
    Root root_;
  };

  // Holds metadata in which every device is that the pool had before its transaction id became
  // greater than `transaction_id`. Waits while an older snapshot is held by others. Throws
  // kUnavailable if the pool has failed, kBusy if another program holds its metadata snapshot, and
  // what the catalog throws, which notes where it is for the start after a power cut. Thread-safe.
  Hold hold(std::uint64_t transaction_id);

 private:
  void release();
  void note();
  void give_back();
  void require_read_only() const;

  Catalog& catalog_;
  ThinPool& pool_;
  std::mutex lock_;
  std::condition_variable released_;
  unsigned holders_ = 0;
  bool is_left_held_ = false;  // could not be released
  std::uint64_t held_transaction_ = 0;
};

}  // namespace convoy
