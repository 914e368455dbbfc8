#![allow(missing_docs, clippy::all, clippy::unwrap_used)]
use dejavm_benches::*;
use std::time::Instant;
fn main() {
    let s = system_or_skip("x").unwrap();
    let p = guests::compile_loops(std::path::Path::new("/tmp"));
    for n in [1, 8, 64, 256] {
        let mut m = guests::loops(&s, &p, "fault", n);
        let lim = limit();
        for i in 0..3 {
            let r = m.run(b"", lim).unwrap();
            let t = Instant::now();
            m.rewind().unwrap();
            println!(
                "{n} #{i} exits {} traps {} {:?} rewind {:?} {:?}",
                r.exits,
                r.traps,
                r.duration,
                t.elapsed(),
                m.last_rewind()
            );
        }
        let (mut v, mut w) = (vec![], vec![]);
        for _ in 0..100 {
            let r = m.run(b"", lim).unwrap();
            v.push(r.duration.as_nanos() as f64 / 1000.);
            let t = Instant::now();
            m.rewind().unwrap();
            w.push(t.elapsed().as_nanos() as f64 / 1000.);
        }
        println!("{n} run {:.0} us rewind {:.1}", interleave::median(v), interleave::median(w));
    }
}
