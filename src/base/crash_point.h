// Moments at which something has just changed that outlives this process: in the pool, the catalog,
// a file system, a store. A crash there must be survived; tests/vm/crash_points_test.py tries it at
// every one that an operation comes by.
//
// They stand in the few functions by which changes are made, not in the operations: a new step of
// one that uses these is tried without anybody's doing. (Requests to S3 have none: for those, a
// directory stands.)
#pragma once

namespace convoy {

// Does nothing. `tests/vm/crash_points.cc` has another definition, for the daemon that is tested:
// it notes `name`, and ends the process if its time has come.
void crash_point(const char* name);

}  // namespace convoy
