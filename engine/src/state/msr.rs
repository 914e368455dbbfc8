//! The MSRs that need a treatment of their own, by number (Intel SDM vol. 4, table 2-2; AMD APM
//! vol. 2, appendix A).
//!
//! Never reads or writes one.

/// IA32_TIME_STAMP_COUNTER: runs by itself, so that its value is neither compared nor rewound.
/// That a guest has not moved it shows in IA32_TSC_ADJUST, which moves with it.
pub(super) const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE: needs a configured local APIC, and is 0 once it has fired.
pub(super) const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_MPERF, IA32_APERF: run by themselves.
const MPERF: u32 = 0xe7;
const APERF: u32 = 0xe8;
/// Hyper-V's VP_RUNTIME and TIME_REF_COUNT, which KVM emulates: clocks.
const HV_CLOCKS: [u32; 2] = [0x4000_0010, 0x4000_0020];

/// Where SYSENTER goes.
pub(super) const SYSENTER_CS: u32 = 0x174;
pub(super) const SYSENTER_ESP: u32 = 0x175;
pub(super) const SYSENTER_EIP: u32 = 0x176;
/// Whether CPUID faults at CPL 3, among others.
pub(super) const MISC_FEATURES_ENABLES: u32 = 0x140;
/// Where SYSCALL goes, and the flags that it clears.
pub(super) const STAR: u32 = 0xc000_0081;
pub(super) const LSTAR: u32 = 0xc000_0082;
pub(super) const CSTAR: u32 = 0xc000_0083;
pub(super) const FMASK: u32 = 0xc000_0084;
/// What RDTSCP and RDPID read.
pub(super) const TSC_AUX: u32 = 0xc000_0103;

/// MSRs that cannot be compared, each because it changes by itself.
#[must_use]
pub fn runs_by_itself(index: u32) -> bool {
    matches!(index, TSC | MPERF | APERF) || HV_CLOCKS.contains(&index)
}
