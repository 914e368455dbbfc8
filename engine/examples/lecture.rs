//! The KVM lecture's virtual machine, on the engine's API: 10 MB of RAM at 0x100000, one vCPU in
//! 32-bit protected mode with flat segments, interrupt controllers in the kernel, and a console
//! at port 0x3f8.
//!
//!     cargo run -p dejavm-engine --example lecture

use dejavm_engine::guest::bare::BareSpec;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{Boot, Limit, ProcessPoint, Started};
use std::error::Error;
use std::time::Duration;

/// The guest, at its load address 0x00100f00: prints the bytes behind it, and halts.
const GUEST: &[u8] = &[
    0xbe, 0x13, 0x0f, 0x10, 0x00, //       mov  esi, message
    0x66, 0xba, 0xf8, 0x03, //             mov  dx, 0x3f8
    0xac, //                         next: lodsb
    0x84, 0xc0, //                         test al, al
    0x74, 0x03, //                         jz   end
    0xee, //                               out  dx, al
    0xeb, 0xf8, //                         jmp  next
    0xfa, //                         end:  cli
    0xf4, //                               hlt
];

/// Boots the guest, and prints what it did.
pub fn main() -> Result<(), Box<dyn Error>> {
    // KVM_GET_API_VERSION on /dev/kvm.
    let system = System::open()?;

    // KVM_CREATE_VM, KVM_SET_USER_MEMORY_REGION, KVM_SET_TSS_ADDR (0xffffd000),
    // KVM_SET_IDENTITY_MAP_ADDR (0xffffc000), KVM_CREATE_IRQCHIP, KVM_CREATE_VCPU, and the
    // registers: CR0.PE, flat segments, RIP 0x00100f00, RFLAGS 2.
    let guest = BareSpec::lecture([GUEST, b"hello from the guest\n\0"].concat());
    let boot = Boot::bare(&system, &guest)?;

    // KVM_RUN, and an answer to every exit, until the guest ends or a second has passed.
    match boot.start(ProcessPoint::Input, Limit::time(Duration::from_secs(1)))? {
        Started::Ended(ended) => {
            print!("{}", String::from_utf8_lossy(&ended.stdout));
            println!("the guest {} after {} exits", ended.report.outcome, ended.report.exits);
        }
        Started::AtSnapshot(_) => println!("this guest never asks for a snapshot"),
    }
    Ok(())
}
