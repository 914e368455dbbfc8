//! How far a guest reaches into its CPU. Never knows what kind of guest it is.

use super::msr;

/// How far a guest reaches into the CPU, which decides which of its MSRs a host may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Code at CPL 3, behind the engine's own gate: RDMSR and WRMSR fault.
    Program,
    /// Code at CPL 0, which can read and write any MSR that there is.
    Kernel,
}

impl Reach {
    /// Whether a guest can tell that its CPU lacks the MSR `index`.
    #[must_use]
    pub fn notices(self, index: u32) -> bool {
        self == Self::Kernel || REACH_CPL_3.contains(&index)
    }
}

/// The MSRs that decide what an instruction at CPL 3 does. FS and GS bases and EFER are special
/// registers.
const REACH_CPL_3: [u32; 9] = [
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
    msr::MISC_FEATURES_ENABLES,
    msr::STAR,
    msr::LSTAR,
    msr::CSTAR,
    msr::FMASK,
    msr::TSC_AUX,
];
