#![allow(missing_docs, clippy::all, clippy::unwrap_used)]
use dejavm_benches::*;
use std::time::Instant;
fn main(){
 let s=system_or_skip("x").unwrap();
 let p=guests::compile(std::path::Path::new("/tmp"),"json",&[]);
 let input=b"{\"id\": 17, \"tags\": [\"a\", \"b\\n\", \"\\u00e9\"], \"ok\": true, \"next\": null}";
 let mut m=guests::process(&s,&dejavm_engine::guest::process::ProcessSpec::new(p),input);
 let lim=limit();
 for _ in 0..3 { let r=m.run(input,lim).unwrap(); let t=Instant::now(); m.rewind().unwrap(); println!("exits {} traps {} calls {} {:?} rewind {:?} {:?}",r.exits,r.traps,r.system_calls,r.duration,t.elapsed(),m.last_rewind()); }
 let (mut v,mut w)=(vec![],vec![]); for _ in 0..1000 { let r=m.run(input,lim).unwrap();v.push(r.duration.as_nanos() as f64/1000.); let t=Instant::now(); m.rewind().unwrap(); w.push(t.elapsed().as_nanos() as f64/1000.); }
 println!("run {:.1} us rewind {:.1}", interleave::median(v), interleave::median(w));
}
