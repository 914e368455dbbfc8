//! A CPU that is a plain value.

use crate::linux::abi::registers::Registers;
use crate::linux::cpu::{Cpu, ExtendedLayout};

/// A CPU that is its registers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MockCpu {
    pub(crate) regs: Registers,
    pub(crate) bases: [u64; 2],
    pub(crate) extended: Vec<u8>,
}

impl Cpu for MockCpu {
    fn registers(&self) -> Registers {
        self.regs
    }

    fn set_registers(&mut self, regs: &Registers) {
        assert!(regs.rip < 1 << 47);
        self.regs = *regs;
    }

    fn bases(&self) -> [u64; 2] {
        self.bases
    }

    fn set_bases(&mut self, bases: [u64; 2]) {
        self.bases = bases;
    }

    fn extended_layout(&mut self) -> ExtendedLayout {
        ExtendedLayout { features: 7, bytes: 832 }
    }

    fn extended(&mut self) -> Vec<u8> {
        self.extended.clone()
    }

    fn set_extended(&mut self, area: &[u8]) {
        assert_eq!(area.len(), 832);
        self.extended = area.to_vec();
    }
}
