// The trees that a superblock leads to.
#pragma once

#include "thinmeta/node.h"
#include "thinmeta/superblock.h"

namespace convoy::thinmeta {

// Thin id -> DiskDeviceDetails.
Tree details_tree(const Superblock& superblock);

// Thin id -> Le64, the root of the device's mappings, below `metadata_end`.
Tree roots_tree(const Superblock& superblock, std::uint64_t metadata_end);

// Block of the device -> DiskMapping.
Tree mapping_tree(const Superblock& superblock, std::uint32_t thin_id, std::uint64_t root);

}  // namespace convoy::thinmeta
