#![allow(missing_docs, clippy::all, clippy::unwrap_used)]
use dejavm_benches::floor::RawVm;
use dejavm_benches::*;
use std::time::{Duration, Instant};
fn main() {
    let s = system_or_skip("x").unwrap();
    let p = guests::compile_loops(std::path::Path::new("/tmp"));
    for pages in std::env::args().skip(1).map(|a| a.parse::<u64>().unwrap()) {
        let mut m = guests::loops(&s, &p, "dirty", pages);
        let mut raw = RawVm::new(m.snapshot());
        let lim = limit();
        let (mut a, mut b, mut c, mut d) = (vec![], vec![], vec![], vec![]);
        for _ in 0..300 {
            let t = Instant::now();
            for _ in 0..32 {
                raw.round();
            }
            a.push(t.elapsed().as_nanos() as f64 / 32.);
            let (mut x, mut y) = (Duration::ZERO, Duration::ZERO);
            let t0 = Instant::now();
            for _ in 0..32 {
                let t = Instant::now();
                m.run(b"", lim).unwrap();
                let u = Instant::now();
                m.rewind().unwrap();
                x += u - t;
                y += u.elapsed();
            }
            d.push(t0.elapsed().as_nanos() as f64 / 32.);
            b.push(x.as_nanos() as f64 / 32.);
            c.push(y.as_nanos() as f64 / 32.);
        }
        let md = interleave::median;
        let r: Vec<f64> = d.iter().zip(&a).map(|(d, a)| d / a).collect();
        let rr: Vec<f64> = b.iter().zip(&a).map(|(d, a)| d / a).collect();
        println!(
            "{pages}: raw {:.0} run {:.0} rewind {:.0} total {:.0} ratio {:.3} (run only {:.3})",
            md(a),
            md(b),
            md(c),
            md(d),
            md(r),
            md(rr)
        );
    }
}
