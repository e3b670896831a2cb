#pragma once
// Which instruction set the kernels use.

namespace ptq::kernels {

enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2 };

constexpr const char* text(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "portable"; }

/// Best instruction set of this machine (avx2 includes FMA; avx512 is F, BW, DQ and VL).
Isa machine_isa();

/// Instruction set in use: machine_isa(), capped by the environment variable PTQ_ISA (portable | avx2 | avx512) or by use_isa().
Isa isa();

/// Choose an instruction set for the whole process; false, and no change, where the machine lacks it. Not while kernels run.
bool use_isa(Isa isa);

/// Whether the machine multiplies bfloat16 in hardware (AVX-512 BF16, which every processor with AMX has too) and isa() is avx512.
bool multiplies_bfloat16();

}  // namespace ptq::kernels
