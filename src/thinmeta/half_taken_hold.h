// A metadata snapshot that a power cut left half taken.
//
// The kernel's reserve_metadata_snap writes the snapshot's block into the superblock, and commits
// (drivers/md/dm-thin-metadata.c, __reserve_metadata_snap; __commit_transaction). The commit first
// flushes everything that has changed, this superblock included, and then writes the superblock by
// which the references to the snapshot count. If the power fails between the two, the superblock on
// the disk names a snapshot that nobody counts. release_metadata_snap would then delete the live
// trees, whose roots the snapshot shares, and all volumes with them.
#pragma once

#include <filesystem>

namespace convoy {

// True if the pool's metadata on this device name a metadata snapshot that nobody counts. The pool
// may be active: what is read while it commits is read again. Throws kCorrupt, kUnsupported or kIo
// if the metadata can't be read.
bool has_half_taken_hold(const std::filesystem::path& metadata_device);

// Makes the superblock name none then. The pool must not be active. Nothing is written but the
// superblock's 4 KiB, of which the first sector alone changes, so a power cut leaves either. True
// if there was one. Throws as has_half_taken_hold, and kBusy if somebody holds the device.
bool drop_half_taken_hold(const std::filesystem::path& metadata_device);

}  // namespace convoy
