// Taking over the pool of a Rancher Convoy 0.5.2, with all that its files name, at the first start.
//
// What is done, in this order, so that each start can go on where the one before was cut short:
//
//   the catalog gets the pool's row: being made, and without a label
//   the pool's thin devices are compared with the files: they may be an old copy, of another pool
//   the catalog gets all volumes and snapshots, in one transaction
//   the pool's transaction id becomes the catalog's: from now on the files are not read any more
//   the pool's dm device becomes ours, with our table
//   the thin devices that are active become ours
//   the files are renamed
//   the catalog's row is that of a ready pool
//
// Before the transaction id is the catalog's, a start reads the files anew and replaces what the
// catalog has from them. Nothing that is mounted is unmounted, and nothing that doesn't match the
// files is touched.
#pragma once

#include <filesystem>

#include "catalog/catalog.h"
#include "devmapper/kernel_thin_pool.h"
#include "thinmeta/metadata.h"
#include "volumes/convoy_root.h"

namespace convoy {

// The row of Convoy's pool, as its files describe it. Looks at no device. Throws kInvalidArgument
// if they can't be used.
PoolRow row_of(const ConvoyPool& convoy);

// Throws kInvalidArgument if `metadata`, of an inactive pool, is of blocks of another size, or has
// none of the volumes in the files.
void require_convoy_pool(const ConvoyRoot& convoy, const PoolRow& row, Metadata& metadata);

// Does the rest for a pool that is up. Throws kInvalidArgument, with the pool as it was, if it has
// none of the files' volumes. A volume or snapshot that can't be taken over (its
// thin device is gone, its name is none that we have) is left alone; the log says why, and how to
// get at its data.
void finish_takeover(Catalog& catalog, KernelThinPool& kernel_pool, const PoolRow& pool,
                     const std::filesystem::path& root);

}  // namespace convoy
