//! Exception vectors and error codes (Intel SDM vol. 3, 6.3.1, table 6-1; AMD APM vol. 2, 8.2): the
//! one table of them in the engine.
//!
//! Never decides what an exception means to a guest.

/// #DE: DIV or IDIV by zero, or a quotient that does not fit.
pub const DIVIDE_ERROR: u8 = 0;
/// #DB: a single step, a breakpoint register, INT1.
pub const DEBUG: u8 = 1;
/// NMI.
pub const NON_MASKABLE_INTERRUPT: u8 = 2;
/// #BP: INT3.
pub const BREAKPOINT: u8 = 3;
/// #OF: INTO.
pub const OVERFLOW: u8 = 4;
/// #BR: BOUND.
pub const BOUND_RANGE: u8 = 5;
/// #UD: an opcode that is none, or UD2.
pub const INVALID_OPCODE: u8 = 6;
/// #NM: x87 or SSE while CR0 has it off.
pub const DEVICE_NOT_AVAILABLE: u8 = 7;
/// #DF: an exception while another one was delivered.
pub const DOUBLE_FAULT: u8 = 8;
/// #TS: a task switch to a TSS that is none.
pub const INVALID_TSS: u8 = 10;
/// #NP: a segment or gate that is not present.
pub const SEGMENT_NOT_PRESENT: u8 = 11;
/// #SS: a stack access beyond its segment, or to a non-canonical address.
pub const STACK_FAULT: u8 = 12;
/// #GP: any other violation of protection.
pub const GENERAL_PROTECTION: u8 = 13;
/// #PF: an access that the page tables do not allow. CR2 has its address.
pub const PAGE_FAULT: u8 = 14;
/// #MF: an unmasked x87 exception.
pub const X87_FLOATING_POINT: u8 = 16;
/// #AC: an access that is not aligned, while that is checked.
pub const ALIGNMENT_CHECK: u8 = 17;
/// #MC: the machine reports an error of its own.
pub const MACHINE_CHECK: u8 = 18;
/// #XM: an unmasked SIMD floating-point exception.
pub const SIMD_FLOATING_POINT: u8 = 19;
/// #VE: an EPT violation that is handed to the guest.
pub const VIRTUALIZATION: u8 = 20;
/// #CP: a return or an indirect branch that control-flow enforcement refuses.
pub const CONTROL_PROTECTION: u8 = 21;
/// #HV: a hypervisor's own events (AMD).
pub const HYPERVISOR_INJECTION: u8 = 28;
/// #VC: what an encrypted guest must ask its hypervisor for (AMD).
pub const VMM_COMMUNICATION: u8 = 29;
/// #SX: security-sensitive events (AMD).
pub const SECURITY: u8 = 30;

/// Whether the CPU pushes an error code for the exception (same tables).
#[must_use]
pub const fn has_error_code(vector: u8) -> bool {
    matches!(
        vector,
        DOUBLE_FAULT
            | INVALID_TSS
            | SEGMENT_NOT_PRESENT
            | STACK_FAULT
            | GENERAL_PROTECTION
            | PAGE_FAULT
            | ALIGNMENT_CHECK
            | CONTROL_PROTECTION
            | VMM_COMMUNICATION
            | SECURITY
    )
}

/// In a page fault's error code: the access was a store (Intel SDM vol. 3, 4.7, figure 4-12).
pub const PAGE_FAULT_WRITE: u32 = 1 << 1;
/// In a page fault's error code: the access was an instruction fetch (same figure).
pub const PAGE_FAULT_FETCH: u32 = 1 << 4;
