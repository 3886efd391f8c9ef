// That the tests' stand-in for a store is one.
#include "objectstore/memory_store.h"

#include <gtest/gtest.h>

#include "objectstore/object_store_conformance.h"

namespace convoy {
namespace {

INSTANTIATE_TEST_SUITE_P(Memory, ObjectStoreConformance,
                         testing::Values([] { return std::make_shared<MemoryStore>(); }));

}  // namespace
}  // namespace convoy
