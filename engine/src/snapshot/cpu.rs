//! What a snapshot needs of a host's CPU, by name, so that a host that lacks it can say so before
//! anything is loaded. Never decides what to do about it.

use crate::state::supported_xcr0;
use kvm_bindings::kvm_cpuid_entry2;
use serde::{Deserialize, Serialize};

/// CPUID features, XCR0 and CR4 bits that a snapshot was taken with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuNeeds {
    /// Feature words, each as (leaf, subleaf, register, value); see [`WORDS`].
    features: Vec<(u32, u32, Register, u32)>,
    /// XCR0.
    pub xcr0: u64,
    /// CR4.
    pub cr4: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Register {
    Ebx,
    Ecx,
    Edx,
}

/// The feature words that a program can depend on (Intel SDM vol. 2, CPUID; AMD APM vol. 3, E.3),
/// each with the bits that describe instructions. Bits that describe the platform (VMX, MONITOR,
/// x2APIC, hypervisor...) are no need of a guest's code, and OSXSAVE only mirrors CR4.
const WORDS: [(u32, u32, Register, u32); 5] = [
    (1, 0, Register::Ecx, 0x76d8_3203),
    (1, 0, Register::Edx, 0x0780_8111),
    (7, 0, Register::Ebx, 0xf0bf_0329),
    (7, 0, Register::Ecx, 0x0040_5f42),
    (0x8000_0001, 0, Register::Ecx, 0x0021_0961),
];

/// Names of single bits; those without one are named by leaf, register and bit.
const NAMES: [(u32, Register, u32, &str); 33] = [
    (1, Register::Ecx, 0, "sse3"),
    (1, Register::Ecx, 1, "pclmulqdq"),
    (1, Register::Ecx, 9, "ssse3"),
    (1, Register::Ecx, 12, "fma"),
    (1, Register::Ecx, 13, "cmpxchg16b"),
    (1, Register::Ecx, 19, "sse4.1"),
    (1, Register::Ecx, 20, "sse4.2"),
    (1, Register::Ecx, 22, "movbe"),
    (1, Register::Ecx, 23, "popcnt"),
    (1, Register::Ecx, 25, "aes"),
    (1, Register::Ecx, 26, "xsave"),
    (1, Register::Ecx, 28, "avx"),
    (1, Register::Ecx, 29, "f16c"),
    (1, Register::Ecx, 30, "rdrand"),
    (7, Register::Ebx, 0, "fsgsbase"),
    (7, Register::Ebx, 3, "bmi1"),
    (7, Register::Ebx, 5, "avx2"),
    (7, Register::Ebx, 8, "bmi2"),
    (7, Register::Ebx, 9, "erms"),
    (7, Register::Ebx, 16, "avx512f"),
    (7, Register::Ebx, 17, "avx512dq"),
    (7, Register::Ebx, 18, "rdseed"),
    (7, Register::Ebx, 19, "adx"),
    (7, Register::Ebx, 21, "avx512ifma"),
    (7, Register::Ebx, 28, "avx512cd"),
    (7, Register::Ebx, 29, "sha"),
    (7, Register::Ebx, 30, "avx512bw"),
    (7, Register::Ebx, 31, "avx512vl"),
    (7, Register::Ecx, 9, "vaes"),
    (7, Register::Ecx, 10, "vpclmulqdq"),
    (7, Register::Ecx, 22, "rdpid"),
    (0x8000_0001, Register::Ecx, 5, "lzcnt"),
    (0x8000_0001, Register::Ecx, 6, "sse4a"),
];

impl CpuNeeds {
    /// What a guest with this CPUID, XCR0 and CR4 may depend on.
    #[must_use]
    pub fn of(cpuid: &[kvm_cpuid_entry2], xcr0: u64, cr4: u64) -> Self {
        let features = WORDS
            .iter()
            .map(|&(leaf, sub, register, mask)| {
                (leaf, sub, register, word(cpuid, leaf, sub, register) & mask)
            })
            .collect();
        Self { features, xcr0, cr4 }
    }

    /// Names what `host` lacks: the CPUID that a vCPU really has there (`KVM_GET_CPUID2`), because
    /// some hosts support more than `KVM_GET_SUPPORTED_CPUID` admits.
    #[must_use]
    pub fn missing_on(&self, host: &[kvm_cpuid_entry2]) -> Vec<String> {
        let mut missing = Vec::new();
        for &(leaf, sub, register, needed) in &self.features {
            let lacking = needed & !word(host, leaf, sub, register);
            missing.extend(
                (0..32)
                    .filter(|bit| lacking & (1 << bit) != 0)
                    .map(|bit| name(leaf, register, bit)),
            );
        }
        let supported = supported_xcr0(host);
        if self.xcr0 & !supported & !1 != 0 {
            missing.push(format!("XCR0 bits {:#x}", self.xcr0 & !supported & !1));
        }
        missing
    }
}

fn word(cpuid: &[kvm_cpuid_entry2], leaf: u32, sub: u32, register: Register) -> u32 {
    // A leaf that a CPU has not reads as zeros (Intel SDM vol. 2, CPUID).
    let entry = cpuid.iter().find(|e| e.function == leaf && e.index == sub);
    entry.map_or(0, |e| match register {
        Register::Ebx => e.ebx,
        Register::Ecx => e.ecx,
        Register::Edx => e.edx,
    })
}

fn name(leaf: u32, register: Register, bit: u32) -> String {
    let known = NAMES.iter().find(|&&(l, r, b, _)| (l, r, b) == (leaf, register, bit));
    match known {
        Some((.., name)) => (*name).to_owned(),
        None => format!("CPUID.{leaf:X}H:{register:?}[{bit}]").to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpuid(ebx7: u32) -> Vec<kvm_cpuid_entry2> {
        vec![
            kvm_cpuid_entry2 { function: 7, ebx: ebx7, ..Default::default() },
            kvm_cpuid_entry2 { function: 0xd, eax: 7, ..Default::default() },
        ]
    }

    #[test]
    fn a_missing_feature_is_named() {
        let needs = CpuNeeds::of(&cpuid(1 << 5 | 1 << 16), 0xe7, 0);
        assert_eq!(needs.missing_on(&cpuid(1 << 5)), ["avx512f", "XCR0 bits 0xe0"]);
        assert!(CpuNeeds::of(&cpuid(1 << 5), 7, 0).missing_on(&cpuid(!0)).is_empty());
    }
}
