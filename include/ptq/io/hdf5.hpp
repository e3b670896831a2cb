// The one door to HDF5 (C API, 1.10 or later): Hdf5Reader reads, Hdf5Writer builds a file in memory and saves it atomically,
// Hdf5Bulk fills one that is larger than memory. The schemas of our files are in docs/formats.md.
#pragma once

#include <ptq/io/hdf5/bulk.hpp>
#include <ptq/io/hdf5/read.hpp>
#include <ptq/io/hdf5/write.hpp>
