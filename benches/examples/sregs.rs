#![allow(missing_docs, clippy::all, clippy::unwrap_used)]
use dejavm_benches::*;
use dejavm_engine::guest::process::trap;
use std::time::Instant;
fn main() {
    let s = system_or_skip("x").unwrap();
    let p = guests::compile_loops(std::path::Path::new("/tmp"));
    let m = guests::loops(&s, &p, "dirty", 1);
    let snap = m.snapshot().clone();
    use dejavm_engine::machine::hardware::*;
    let spec = VmSpec { layout: snap.layout.clone(), ..VmSpec::default() };
    let mut hw = Hardware::new(&s, &spec).unwrap();
    hw.memory.map_pages(&snap.pages).unwrap();
    snap.state.load(&mut hw.vcpu, &hw.vm).unwrap();
    hw.memory.start_dirty_log().unwrap();
    let mut r = snap.state.regs;
    r.rip += 2;
    r.rax = 0;
    let mut b = vec![];
    for w in [r.rax, r.rdx, r.rip] {
        b.extend(w.to_le_bytes());
    }
    hw.memory.write(trap::RESUME, &b).unwrap();
    let x = snap.state.xcr0();
    println!("xcr0 {x:x} bv {:x}", snap.state.xsave[512]);
    let mut t0 = r;
    t0.rax = x;
    t0.rdx = 0;
    t0.rip = trap::trampoline_entry().0;
    let mut t1 = t0;
    t1.rax = 3;
    let mut t2 = t0;
    t2.rax = 0;
    let mut t3 = t0;
    t3.rip += 8;
    let mut res = vec![vec![]; 7];
    for _ in 0..400 {
        for (k, q) in [r, t0, t1, t2, t3].into_iter().enumerate() {
            let t = Instant::now();
            for _ in 0..32 {
                *hw.vcpu.regs_mut() = q;
                hw.vcpu.run().unwrap();
            }
            res[k].push(t.elapsed().as_nanos() as f64 / 32.);
        }
        let t = Instant::now();
        for _ in 0..32 {
            *hw.vcpu.regs_mut() = t0;
            hw.vcpu.run().unwrap();
            hw.memory.dirty_log(1).unwrap();
        }
        res[5].push(t.elapsed().as_nanos() as f64 / 32.);
        let t = Instant::now();
        for _ in 0..32 {
            *hw.vcpu.regs_mut() = t0;
            hw.vcpu.run().unwrap();
            unsafe {
                libc::syscall(libc::SYS_getppid);
            }
        }
        res[6].push(t.elapsed().as_nanos() as f64 / 32.);
    }
    for (n, v) in
        ["direct", "tramp", "tramp rfbm3", "rfbm0", "noxrstor", "tramp+log", "tramp+getppid"]
            .iter()
            .zip(res)
    {
        println!("{n} {:.0}", interleave::median(v));
    }
}
