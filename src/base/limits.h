// Every limit of the product in one place, with the arithmetic that gives it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace convoy {

// --- Names ---

// Device mapper takes names of at most 127 bytes (DM_NAME_LEN is 128, with the final NUL). The
// longest name of ours is a snapshot's work device, "<pool>-<uuid>": 64 + 1 + 36 = 101.
inline constexpr std::size_t kMaxNameLength = 64;

// The shortest start of a UUID that names an object. Among 100 random ones, two begin with the same
// three digits more often than not, with the same four once in 13 times.
inline constexpr std::size_t kMinUuidPrefixLength = 4;

// --- Thin pool ---

// dm-thin.c: MAX_DEV_ID is (1 << 24) - 1.
inline constexpr std::uint32_t kMaxThinId = (1U << 24U) - 1;

// dm-thin.c: DATA_DEV_BLOCK_SIZE_MIN_SECTORS (64 KiB), DATA_DEV_BLOCK_SIZE_MAX_SECTORS (1 GiB); a
// multiple of the minimum.
inline constexpr Sectors kMinPoolBlock{128};
inline constexpr Sectors kMaxPoolBlock{2097152};
inline constexpr Sectors kDefaultPoolBlock{4096};

// How much of a volume is trimmed at a time, unless its file system wants more: whoever else needs
// the volume waits for a step, and work that is cancelled ends after it.
inline constexpr std::uint64_t kTrimStep = kGiB;

// Blocks of the metadata device (dm-thin-metadata.h: THIN_METADATA_BLOCK_SIZE).
inline constexpr std::uint64_t kMetadataBlockBytes = 4096;

// The smallest metadata device we start a pool on. The kernel wants room for its superblock, space
// maps and a first transaction; thin_metadata_size advises 2 MiB as the least.
inline constexpr std::uint64_t kMinMetadataDevice = 2 * kMiB;

// How many ranges of a volume are held that may have changed: 2^19 of 24 bytes are 12 MiB, and a
// backup has some three times that of them. 1 TiB in pool blocks of 2 MiB can't have more.
inline constexpr std::size_t kMaxChangedRanges = 1U << 19U;

// A pool that is used to so many percent, of its data or its metadata device, is warned of by
// default; and from the second on it takes no new volumes and snapshots, so that those there are
// can be written for a while. The kernel stops all changes when the metadata device is full.
inline constexpr unsigned kDefaultLowWatermark = 80;
inline constexpr unsigned kRefusalPercent = 95;

// The kernel tells of a data device that gets full, but not of one that has got room again and is
// filled again, nor of metadata below its own mark: so we look as often as this, too.
inline constexpr std::chrono::seconds kPoolWatchInterval{30};

inline constexpr std::uint64_t kDefaultVolumeSize = 100 * kGiB;

// A thin device has 64 bits of sectors; ext4 with 4 KiB blocks ends at 1 EiB, and the store's tree
// at 2^64 bytes. We stop at 1 PiB, far below the three.
inline constexpr std::uint64_t kMaxVolumeSize = 1024 * kTiB;

// --- Waiting ---

// How long a busy device is tried again: udev or a scanner that has just opened it lets go within a
// second.
inline constexpr std::chrono::milliseconds kBusyRetryLimit{5000};
inline constexpr std::chrono::milliseconds kBusyRetryStep{100};

// How long 'inspect' waits for the kernel, which answers nobody while it deletes a large device, to
// tell how much of a volume is mapped. Docker asks that whenever it shows a volume.
inline constexpr std::chrono::milliseconds kStatusPatience{500};

// How often we look whether udev is done with a device: a part of what that takes.
inline constexpr std::chrono::milliseconds kUdevPollStep{5};

// udev kills what a rule runs after three minutes (udevd's --event-timeout), and then nobody is
// told that the device is done with.
inline constexpr std::chrono::seconds kUdevTimeout{200};

// mkfs of a large volume on a slow disk takes seconds; a child that needs longer than this hangs.
inline constexpr std::chrono::seconds kDefaultCommandTimeout{120};

// How long the catalog waits for somebody who looks into it with another program.
inline constexpr std::chrono::duration<int, std::milli> kCatalogBusyTimeout{5000};

// How long a start waits for the suspend guard of a daemon that was killed: it may have to flush a
// volume's dirty pages first.
inline constexpr std::chrono::seconds kGuardTimeout{120};

// --- Backup store ---

// A chunk never straddles pool blocks, so it is at most the smallest pool block. By default it is
// what costs least over a full backup and a few incremental ones: docs/performance.md has the
// figures.
inline constexpr std::uint32_t kMinChunkSize = 4 * 1024;
inline constexpr std::uint32_t kMaxChunkSize = 64 * 1024;
inline constexpr std::uint32_t kDefaultChunkSize = 16 * 1024;

// Entries of one tree node. 128 references of 38 bytes and, at worst, 128 pack names of 20 bytes
// make 7.3 KiB.
inline constexpr std::size_t kTreeFanout = 128;

// 128^8 chunks of 4 KiB are far beyond kMaxVolumeSize, so no tree is higher than this.
inline constexpr std::uint32_t kMaxTreeHeight = 8;

// A pack is closed when it has reached this size; with the last frame and the footer it gets a
// little larger.
inline constexpr std::uint64_t kPackTargetSize = 16 * kMiB;

// The smallest frame is 40 bytes long, so a pack of the target size has fewer slots than this.
// Readers refuse more.
inline constexpr std::uint32_t kMaxPackSlots = 1U << 20U;

// What readers are ready to take for one pack. Twice the target leaves room for the last frame and
// the footer.
inline constexpr std::uint64_t kMaxPackSize = 2 * kPackTargetSize;

// A JSON object of a store. The largest is a backup's, which tells size and references of its
// packs: 14 bytes and two values for each, so this is enough for 75 TiB in packs of 16 MiB. In
// memory a value takes 16 bytes, and a field 100: without limits, a store that was made to do harm
// could take tens of GiB.
inline constexpr std::uint64_t kMaxStoreJson = 64 * kMiB;
inline constexpr std::uint32_t kMaxStoreJsonValues = 10'000'000;
inline constexpr std::uint32_t kMaxStoreJsonFields = 1'000'000;
inline constexpr int kMaxStoreJsonDepth = 16;

// Chunks that a backup knows by their digests, wherever in the volume they stand, so that equal
// ones are stored once: 2^19 entries of 64 bytes are 32 MiB.
inline constexpr std::size_t kKnownChunks = 1U << 19U;

// Chunks that stand elsewhere in the parent are looked for if this backup reads at least one for so
// many that the parent has, and those are at most half of kKnownChunks: nodes that name 8 chunks
// take 2 percent of one chunk's bytes.
inline constexpr std::uint64_t kMaxParentChunksPerRead = 8;

// A lease ends when it was not renewed for this long, by the store's clock. Renewing at a quarter
// of it survives three failed attempts.
inline constexpr std::chrono::minutes kLeaseDuration{10};
inline constexpr std::chrono::seconds kLeaseRenewal = kLeaseDuration / 4;

// Packs of a backup that never committed are removed after this: far longer than a lease, so that a
// writer that lost its lease has long noticed.
inline constexpr std::chrono::hours kGarbageGrace{24};

// Revocations are kept for this long: whoever sleeps through it between its last look and its
// commit would not know that it is void.
inline constexpr std::chrono::hours kRevocationAge{30 * 24};

// How long a remover waits for the store's clock to pass the time of a revocation: the clock tells
// whole seconds at worst, unless it was set back.
inline constexpr std::chrono::seconds kClockPatience{10};

// A pack is rewritten when less than so many percent of its bytes are needed. So what a store holds
// is at most 1.7 times what its backups need, and a byte that stays is copied at most every time
// that 0.67 others are freed.
inline constexpr std::uint64_t kMinLiveShare = 60;

// --- Daemon ---

// One thread serves one connection. Docker opens one per plugin call and the command line one per
// command.
inline constexpr unsigned kMaxConnections = 512;

// The largest request body: a create with all its options is under 1 KiB.
inline constexpr std::size_t kMaxRequestBody = 1U << 20U;

}  // namespace convoy
