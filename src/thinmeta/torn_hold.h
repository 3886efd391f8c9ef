// A metadata snapshot that a power cut left half taken, or half released.
//
// The kernel's reserve_metadata_snap writes the snapshot's block into the superblock, and commits
// (drivers/md/dm-thin-metadata.c, __reserve_metadata_snap; __commit_transaction). The commit first
// flushes everything that has changed, this superblock included, and then writes the superblock by
// which the references to the snapshot count. release_metadata_snap does the same the other way
// round. If the power fails between the two, the disk has
//   - a superblock that names a snapshot that nobody counts: half taken. To release it would delete
//     the live trees, whose roots it shares, and all volumes with them.
//   - a superblock that names none, and a snapshot that is counted: half released. All that it
//   leads
//     to, which is what the pool holds at that moment, would never be free again.
#pragma once

#include <cstdint>
#include <filesystem>

namespace convoy {

enum class TornHold { kNone, kHalfTaken, kHalfReleased };

// What the pool's metadata on this device have of it. `last` is the block of the metadata snapshot
// that was taken last, 0 if it is not known: then a half released one is not found. One that is
// half taken stays so if its block gets another use. The pool may be active: what is read while it
// commits is read again, for a second; then kUnavailable is thrown. Throws kCorrupt, kUnsupported
// or kIo if the metadata can't be read.
TornHold find_torn_hold(const std::filesystem::path& metadata_device, std::uint64_t last);

// Makes the superblock name none that is half taken, and name again one that is half released,
// which the kernel can release then. The pool must not be active. Nothing is written but the
// superblock's 4 KiB, of which the first sector alone changes, so a power cut leaves either.
// Returns what there was. Throws as find_torn_hold, and kBusy if somebody holds the device.
TornHold mend_torn_hold(const std::filesystem::path& metadata_device, std::uint64_t last);

}  // namespace convoy
