// The suite that every kind of object store must pass. A kind's own test file instantiates it:
//
//   INSTANTIATE_TEST_SUITE_P(Directory, ObjectStoreConformance, testing::Values(...));
#pragma once

#include <functional>
#include <memory>

#include <gtest/gtest.h>

#include "objectstore/object_store.h"

namespace convoy {

// Makes an empty store, and keeps whatever it stands on for as long as the pointer lives.
using MakeObjectStore = std::function<std::shared_ptr<ObjectStore>()>;

class ObjectStoreConformance : public testing::TestWithParam<MakeObjectStore> {
 protected:
  std::shared_ptr<ObjectStore> store_ = GetParam()();
};

}  // namespace convoy
