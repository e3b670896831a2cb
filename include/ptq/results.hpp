// Results of runs: plain data (run), their form in HDF5, where they lie on disk (store), tables. JSON is in results/json.hpp, apart,
// because few programs need it.
#pragma once

#include <ptq/results/environment.hpp>
#include <ptq/results/hdf5.hpp>
#include <ptq/results/run.hpp>
#include <ptq/results/store.hpp>
#include <ptq/results/table.hpp>
