use super::moves::Decoded;
use super::site::{Site, Way};
use super::{
    Detail, Edge, Edges, Emitted, Image, Left, Marker, Marks, Plan, Surroundings, emit, plan,
};
use crate::arch::INT3;
use crate::coverage::blocks::{Blocks, find};
use crate::symbols::tools::{compile, listing};
use iced_x86::FlowControl::ConditionalBranch;
use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction, Mnemonic};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::Command;

const BASE: u64 = 0x7fff_0000_0000;
const CODE: u64 = BASE - 0x3000_0000;
const MAP: u64 = CODE - 0x100_0000;

/// Marks that count, of the edges of `elf` too.
fn counting(elf: &[u8], blocks: &Blocks) -> Marks {
    let edges = Edges::find(elf, blocks);
    Marks { detail: Detail::Counts, edges, first_edge: blocks.starts.len() as u32 }
}

/// An image at [`BASE`], all of which is free and nothing points into.
struct Rewritten {
    elf: Vec<u8>,
    blocks: Blocks,
    marks: Marks,
    plan: Plan,
    emitted: Emitted,
}

impl Rewritten {
    fn new(elf: Vec<u8>, pointed_at: &dyn Fn(u64) -> bool) -> Self {
        let blocks = find(&elf).unwrap();
        let image = Image { elf: &elf, blocks: &blocks, base: BASE, first: 0 };
        let around = Surroundings { is_free: &|_| true, is_pointed_at: pointed_at };
        let marks = counting(&elf, &blocks);
        let plan = plan(&image, &marks, &around);
        let emitted =
            emit(&image, &plan, CODE, &mut Marker { marks: &marks, plan: &plan, map: MAP });
        assert!(emitted.code.len() as u64 <= plan.code_bytes_max());
        let rewritten = Self { elf, blocks, marks, plan, emitted };
        let blocks = rewritten.blocks.starts.len();
        assert_eq!(rewritten.blocks_marked() + rewritten.emitted.left.len(), blocks);
        rewritten
    }

    /// Blocks that mark themselves.
    fn blocks_marked(&self) -> usize {
        let first_edge = self.marks.first_edge;
        self.emitted.numbers.iter().filter(|number| **number < first_edge).count()
    }

    fn read(path: impl AsRef<Path>) -> Option<Self> {
        let path = path.as_ref();
        let Ok(elf) = std::fs::read(path) else {
            eprintln!("skipped: {} is not on this machine", path.display());
            return None;
        };
        let rewritten = Self::new(elf, &|_| false);
        let mut reasons = BTreeMap::<Left, usize>::new();
        for (_, reason) in &rewritten.emitted.left {
            *reasons.entry(*reason).or_default() += 1;
        }
        let of =
            |way: fn(&Way) -> bool| rewritten.plan.sites.iter().filter(|s| way(&s.way)).count();
        let functions = rewritten.blocks.code.functions();
        eprintln!(
            "{}: {:.1} % of {} blocks ({} hops, {} calls), {} of {} edges, {:.1} % of marks count, \
             {}/{} functions closed, left {reasons:?}",
            path.display(),
            rewritten.share() * 100.0,
            rewritten.blocks.starts.len(),
            of(|way| matches!(way, Way::Hop { .. })),
            of(|way| *way == Way::Call),
            rewritten.emitted.numbers.len() - rewritten.blocks_marked(),
            rewritten.marks.edges.len(),
            rewritten.share_counting() * 100.0,
            functions.iter().filter(|f| f.is_closed).count(),
            functions.len(),
        );
        Some(rewritten)
    }

    fn share(&self) -> f64 {
        self.blocks_marked() as f64 / self.blocks.starts.len() as f64
    }

    /// Of the blocks that mark themselves, those that count.
    fn share_counting(&self) -> f64 {
        let starts = self.plan.sites.iter().flat_map(|site| {
            self.blocks.starts.iter().filter(|at| site.range().contains(at)).take(1)
        });
        let counting = starts.filter(|at| self.plan.countable.contains(at)).count();
        counting as f64 / self.plan.sites.len() as f64
    }

    /// The mark of `number` that stands at `at`, before what the image has at `place`; where it ends.
    fn mark_end(&self, at: u64, number: u32, place: u64) -> u64 {
        let index = self.emitted.numbers.iter().position(|n| *n == number).unwrap() as u64;
        let mark = self.decode(at);
        let is_map = |mark: &Instruction| mark.ip_rel_memory_address() == MAP + index;
        assert!(is_map(&mark) && mark.immediate8() == 1 && mark.len() == 7);
        if !self.plan.countable.contains(&place) {
            assert_eq!(mark.mnemonic(), Mnemonic::Mov);
            return mark.next_ip();
        }
        let carry = self.decode(mark.next_ip());
        assert_eq!((mark.mnemonic(), carry.mnemonic()), (Mnemonic::Add, Mnemonic::Adc));
        assert!(is_map(&carry) && carry.immediate8() == 0);
        carry.next_ip()
    }

    /// Checks what stands for the branch `was` of the image, `is`, and the marks of its edges; where
    /// it goes on.
    fn branch_end(&self, was: &Instruction, is: &Instruction) -> u64 {
        let number = |to: u64| {
            let edge = Edge { from: was.ip() - BASE, to: to - BASE };
            self.marks.edges.index_of(edge).map(|index| self.marks.first_edge + index)
        };
        let mut taken = match is.next_ip() {
            // LOOP and JRCXZ go by way of two jumps.
            _ if was.is_loop() || was.is_loopcc() || was.is_jcx_short() => {
                self.decode(is.next_ip() + 2).near_branch_target()
            }
            _ => is.near_branch_target(),
        };
        if let Some(number) = number(was.near_branch_target()) {
            let end = self.mark_end(taken, number, was.near_branch_target() - BASE);
            taken = self.decode(end).near_branch_target();
        }
        assert_eq!(taken, was.near_branch_target());
        let is_short = was.is_loop() || was.is_loopcc() || was.is_jcx_short();
        let end = if is_short { is.next_ip() + 7 } else { is.next_ip() };
        match number(was.next_ip()) {
            Some(number) => self.mark_end(end, number, was.next_ip() - BASE),
            None => end,
        }
    }

    /// What stands at each address of the program's code that was replaced.
    fn replaced(&self) -> HashMap<u64, u8> {
        let bytes = self.emitted.patches.iter().flat_map(|p| (p.at..).zip(p.bytes.iter().copied()));
        bytes.map(|(at, byte)| (at.wrapping_sub(BASE), byte)).collect()
    }

    /// Where nothing may arrive any more.
    fn inside(&self) -> HashSet<u64> {
        let sites = self.plan.sites.iter();
        sites.flat_map(|site| site.at + 1..site.at + site.room as u64).collect()
    }

    /// The trampoline that a block jumps to, with the instruction that does.
    fn trampoline_of(&self, replaced: &HashMap<u64, u8>, site: &Site) -> (u64, Instruction) {
        let jump_at = |at: u64| {
            let bytes: Vec<u8> = (at..at + 15).map_while(|at| replaced.get(&at).copied()).collect();
            Decoder::with_ip(64, &bytes, at + BASE, DecoderOptions::NONE).decode()
        };
        let first = jump_at(site.at);
        match site.way {
            Way::Hop { springboard } => {
                assert_eq!(first.near_branch_target(), springboard + BASE);
                (jump_at(springboard).near_branch_target(), first)
            }
            Way::Jump | Way::Call => (first.near_branch_target(), first),
        }
    }

    fn decode(&self, at: u64) -> Instruction {
        let code = &self.emitted.code[(at - CODE) as usize..];
        Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode()
    }
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    FastFormatter::new().format(instruction, &mut text);
    text
}

/// The addresses that objdump says anything jumps to or calls; `None` without objdump.
fn targets_in_listing(path: &Path) -> Option<Vec<u64>> {
    let target = |line: &str| {
        let (_, instruction) = line.split_once(":\t")?;
        let mut words = instruction.split_whitespace().filter(|word| *word != "bnd");
        let name = words.next()?;
        let is_branch =
            name.starts_with('j') || name.starts_with("call") || name.starts_with("loop");
        is_branch
            .then(|| u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok())
            .flatten()
    };
    Some(listing(path)?.lines().filter_map(target).collect())
}

/// Holds what was rewritten against a listing that was made by somebody else.
fn nothing_leads_into_what_moved(path: &str, share_min: f64) {
    let Some(rewritten) = Rewritten::read(path) else { return };
    let Some(targets) = targets_in_listing(Path::new(path)) else { return };
    assert!(!targets.is_empty());
    let inside = rewritten.inside();
    let wrong: Vec<_> = targets.iter().filter(|at| inside.contains(at)).collect();
    assert!(wrong.is_empty(), "{} jumps into moved code: {wrong:x?}", wrong.len());
    assert!(rewritten.share() >= share_min, "{}", rewritten.share());
}

#[test]
fn nothing_in_libxml2_leads_into_what_moved() {
    nothing_leads_into_what_moved("/usr/lib/x86_64-linux-gnu/libxml2.so.2", 0.8);
}

#[test]
fn nothing_in_xmllint_leads_into_what_moved() {
    nothing_leads_into_what_moved("/usr/bin/xmllint", 0.8);
}

#[test]
fn nothing_in_libjpeg_leads_into_what_moved() {
    nothing_leads_into_what_moved("/usr/lib/x86_64-linux-gnu/libjpeg.so.62", 0.6);
}

#[test]
fn nothing_in_readelf_leads_into_what_moved() {
    nothing_leads_into_what_moved("/usr/bin/readelf", 0.8);
}

#[test]
fn nothing_in_libstdcxx_leads_into_what_moved() {
    nothing_leads_into_what_moved("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 0.6);
}

#[test]
fn nothing_in_busybox_leads_into_what_moved() {
    nothing_leads_into_what_moved("/bin/busybox", 0.5);
}

#[test]
fn a_trampoline_marks_its_block_and_does_what_the_block_did() {
    let Some(rewritten) = Rewritten::read("/usr/bin/xmllint") else { return };
    let replaced = rewritten.replaced();
    let code = &rewritten.blocks.code;
    let original = |at: u64, base: u64| {
        let bytes = code.bytes_from(&rewritten.elf, at);
        Decoder::with_ip(64, bytes, at + base, DecoderOptions::NONE).decode()
    };
    let mut checked = 0;
    for site in &rewritten.plan.sites {
        let (mut next, first) = rewritten.trampoline_of(&replaced, site);
        let mut at = site.at;
        while at < site.range().end {
            if let Ok(number) = rewritten.blocks.starts.binary_search(&at) {
                next = rewritten.mark_end(next, number as u32, at);
            }
            let (was, is) = (original(at, BASE), rewritten.decode(next));
            let mut end = is.next_ip();
            match site.way {
                Way::Call => {
                    assert_eq!(first.len(), was.len(), "the address to return to");
                    let target = |i: &Instruction| match i.is_ip_rel_memory_operand() {
                        true => i.ip_rel_memory_address(),
                        false => i.near_branch_target(),
                    };
                    assert_eq!(target(&is), target(&was));
                    assert_eq!(is.is_ip_rel_memory_operand(), was.is_ip_rel_memory_operand());
                }
                Way::Jump | Way::Hop { .. } if was.flow_control() == ConditionalBranch => {
                    assert_eq!(is.condition_code(), was.condition_code());
                    end = rewritten.branch_end(&was, &is);
                }
                Way::Jump | Way::Hop { .. } => assert_eq!(text(&is), text(&was), "at {at:#x}"),
            }
            (at, next) = (at + was.len() as u64, end);
            checked += 1;
        }
        if site.way != Way::Call {
            assert_eq!(rewritten.decode(next).near_branch_target(), at + BASE);
        }
    }
    assert!(checked > 1000, "{checked}");
}

#[test]
fn edges_that_no_block_stands_for_mark_themselves() {
    let Some(rewritten) = Rewritten::read("/usr/bin/xmllint") else { return };
    let edges = rewritten.emitted.numbers.len() - rewritten.blocks_marked();
    assert!(edges * 10 > rewritten.marks.edges.len() * 7, "{edges}");
    let code = &rewritten.blocks.code;
    for edge in rewritten.marks.edges.all() {
        assert!(code.is_joined(edge.to) && code.is_instruction(edge.from), "{edge:x?}");
    }
    let numbers: HashSet<&u32> = rewritten.emitted.numbers.iter().collect();
    assert_eq!(numbers.len(), rewritten.emitted.numbers.len(), "each place has one byte");
}

/// One function for each way in which code can be understood or not.
const FUNCTIONS: &str = r#"
int closed(int n) { switch (n) {
  case 0: return 5; case 1: return 17; case 2: return n * n; case 3: return n << 7;
  case 4: return 2; case 5: return n ^ 99; case 6: return -n; case 7: return n % 7; }
  return 1; }
void *somewhere;
int open(int n) {
  static void *const *labels;
  static void *const all[] = { &&one, &&two };
  labels = all; somewhere = (void *)labels[n & 1];
  goto *somewhere;
 one: n += 3; n *= n;
 two: n -= 5; n *= 3;
  return n; }
struct object { int (*method)(struct object *); int n; };
int tail(struct object *o) { o->n++; return o->method(o); }
int offsets(const unsigned char *p) {
  static const int all[] = { &&first - &&first, &&second - &&first, &&third - &&first };
  int n = 0;
 first: n += 3; if (n > 90) return n; goto *(&&first + all[p[n]]);
 second: n *= 5; if (n > 80) return n; goto *(&&first + all[p[n]]);
 third: n ^= 1; goto *(&&first + all[p[n]]); }
int overlapped(int n) {
  static int counter;
  __asm__ volatile("testl %0, %0; je 1f; .byte 0xf0; 1: xaddl %0, %1" : "+r"(n), "+m"(counter));
  return n; }
int main(int argc, char **argv) { return closed(argc) + open(argc) + overlapped(argc); }
"#;

fn function_named<'b>(
    path: &Path,
    blocks: &'b Blocks,
    name: &str,
) -> &'b crate::coverage::blocks::Function {
    let listing = Command::new("nm").arg(path).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let line = listing.lines().find(|line| line.split_whitespace().nth(2) == Some(name)).unwrap();
    let at = u64::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap();
    blocks.code.function_at(at).unwrap()
}

#[test]
fn where_a_jump_may_go_anywhere_only_whole_instructions_move() {
    let directory = tempfile::tempdir().unwrap();
    let Some(path) = compile(directory.path(), FUNCTIONS, &["-O0", "-fPIE", "-pie"]) else {
        return;
    };
    let Some(rewritten) = Rewritten::read(&path) else { return };
    let closed = function_named(&path, &rewritten.blocks, "closed");
    let open = function_named(&path, &rewritten.blocks, "open");
    assert!(closed.is_closed && !open.is_closed);
    let code = &rewritten.blocks.code;
    let length = |at| Decoded::new(code.bytes_from(&rewritten.elf, at), at).unwrap().bytes.len();
    let moves_more = |range: &std::ops::Range<u64>| {
        let sites = rewritten.plan.sites.iter().filter(|site| range.contains(&site.at));
        sites.filter(|site| site.moved > length(site.at)).count()
    };
    assert_eq!(moves_more(&open.range), 0);
    assert!(moves_more(&closed.range) > 0);
    let of_open = |(number, _): &&(u32, Left)| {
        open.range.contains(&rewritten.blocks.starts[*number as usize])
    };
    assert!(rewritten.emitted.left.iter().any(|l| of_open(&l) && l.1 == Left::Open));
}

#[test]
fn a_prefix_that_is_jumped_over_does_not_move() {
    let directory = tempfile::tempdir().unwrap();
    let Some(path) = compile(directory.path(), FUNCTIONS, &["-O2"]) else { return };
    let Some(rewritten) = Rewritten::read(&path) else { return };
    let function = function_named(&path, &rewritten.blocks, "overlapped").clone();
    assert!(function.is_closed, "both ways through it are known");
    let code = &rewritten.blocks.code;
    let bytes = code.bytes_from(&rewritten.elf, function.range.start);
    // LOCK XADD, and the XADD inside of it.
    let lock = bytes.windows(3).position(|bytes| bytes == [0xf0, 0x0f, 0xc1]).unwrap() as u64;
    let inner = function.range.start + lock + 1;
    assert!(!code.is_whole(inner - 1, 3) && !rewritten.inside().contains(&inner));
}

#[test]
fn a_tail_call_opens_no_function_and_a_table_of_unknown_size_does() {
    let directory = tempfile::tempdir().unwrap();
    let Some(path) = compile(directory.path(), FUNCTIONS, &["-O2"]) else { return };
    let Some(rewritten) = Rewritten::read(&path) else { return };
    assert!(function_named(&path, &rewritten.blocks, "tail").is_closed);
    assert!(!function_named(&path, &rewritten.blocks, "offsets").is_closed);
}

#[test]
fn what_something_points_into_does_not_move() {
    let Ok(elf) = std::fs::read("/usr/bin/xmllint") else { return };
    let before = Rewritten::new(elf.clone(), &|_| false);
    // Every second instruction after the first of a block that moves.
    let code = &before.blocks.code;
    let inner = before.plan.sites.iter().filter(|site| site.way == Way::Jump).map(|site| {
        site.at
            + Decoded::new(code.bytes_from(&before.elf, site.at), site.at).unwrap().bytes.len()
                as u64
    });
    let inner: Vec<u64> = inner.step_by(2).map(|at| at + BASE).collect();
    let after = Rewritten::new(elf, &|at| inner.contains(&at));
    let inside = after.inside();
    for at in inner.iter().map(|at| at - BASE) {
        assert!(!inside.contains(&at), "{at:#x}");
    }
    assert!(after.share() < before.share());
}

#[test]
fn what_is_not_free_does_not_move() {
    let Ok(elf) = std::fs::read("/usr/bin/xmllint") else { return };
    let blocks = find(&elf).unwrap();
    let image = Image { elf: &elf, blocks: &blocks, base: BASE, first: 7 };
    let odd_pages = |range: std::ops::Range<u64>| {
        range.start / 4096 % 2 == 1 && (range.end - 1) / 4096 % 2 == 1
    };
    let around = Surroundings { is_free: &odd_pages, is_pointed_at: &|_| false };
    let marks = Marks::default();
    let plan = plan(&image, &marks, &around);
    assert!(plan.blocks > 0);
    let emitted = emit(&image, &plan, CODE, &mut Marker { marks: &marks, plan: &plan, map: MAP });
    for patch in &emitted.patches {
        assert!(odd_pages(patch.at..patch.at + patch.bytes.len() as u64), "{:#x}", patch.at);
    }
    let numbers = 7..7 + blocks.starts.len() as u32;
    assert!(emitted.numbers.iter().all(|number| numbers.contains(number)));
}

#[test]
fn what_trampolines_cannot_reach_is_left_alone() {
    let Ok(elf) = std::fs::read("/usr/bin/xmllint") else { return };
    let near = Rewritten::new(elf.clone(), &|_| false);
    let image = Image { elf: &elf, blocks: &near.blocks, base: BASE, first: 0 };
    let mut far = Marker { marks: &near.marks, plan: &near.plan, map: MAP - (4 << 30) };
    let emitted = emit(&image, &near.plan, CODE - (4 << 30), &mut far);
    assert!(emitted.patches.is_empty() && emitted.code.is_empty());
    let unreached = |left: &&(u32, Left)| left.1 == Left::OutOfReach;
    assert_eq!(emitted.left.iter().filter(unreached).count(), near.plan.blocks);
}

/// `code`, moved from 0x1000 to 0x5000.
fn moved(code: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Decoded::new(code, 0x1000).unwrap().emit(&mut out, 0x5000, 0).unwrap();
    out
}

#[test]
fn instructions_that_refer_to_rip_refer_to_the_same_place() {
    // lea rax, [rip + 0x10]; jne +4; jrcxz +4; jmp -2; cmp dword [rip + 0x10], 7
    assert_eq!(moved(&[0x48, 0x8d, 5, 0x10, 0, 0, 0]), [0x48, 0x8d, 5, 0x10, 0xc0, 0xff, 0xff]);
    assert_eq!(moved(&[0x75, 4]), [0x0f, 0x85, 0, 0xc0, 0xff, 0xff]);
    assert_eq!(moved(&[0xe3, 4]), [0xe3, 2, 0xeb, 5, 0xe9, 0xfd, 0xbf, 0xff, 0xff]);
    assert_eq!(moved(&[0xeb, 0xfe]), [0xe9, 0xfb, 0xbf, 0xff, 0xff]);
    assert_eq!(
        moved(&[0x83, 0x3d, 0x10, 0, 0, 0, 7]),
        [0x83, 0x3d, 0x10, 0xc0, 0xff, 0xff, 7],
        "an immediate comes after the displacement"
    );
    assert_eq!(moved(&[0xc3]), [0xc3]);
}

#[test]
fn instructions_that_show_where_they_are_stay() {
    use super::moves::Kind;
    let kind = |code: &[u8]| Decoded::new(code, 0x1000).unwrap().kind();
    // syscall; fld1; int3; ud2; hlt; iretq; call rax; xbegin +0; lea eax, [eip + 0]
    let fixed: [&[u8]; 9] = [
        &[0x0f, 5],
        &[0xd9, 0xe8],
        &[INT3],
        &[0x0f, 0x0b],
        &[0xf4],
        &[0x48, 0xcf],
        &[0xff, 0xd0],
        &[0xc7, 0xf8, 0, 0, 0, 0],
        &[0x67, 0x8d, 5, 0, 0, 0, 0],
    ];
    for code in fixed {
        assert_eq!(kind(code), Kind::Fixed, "{code:x?}");
    }
    assert_eq!(kind(&[0xe8, 0, 0, 0, 0]), Kind::Call);
    assert_eq!(kind(&[0xff, 0x15, 0, 0, 0, 0]), Kind::Call);
    assert_eq!(kind(&[0xff, 0xe0]), Kind::End);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn survives_noise_in_an_image(
        at in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..64),
        base in any::<u64>(),
    ) {
        let Ok(mut elf) = std::fs::read("/usr/bin/djpeg") else { return Ok(()) };
        for (index, byte) in at {
            let index = index.index(elf.len());
            elf[index] = byte;
        }
        if let Ok(blocks) = find(&elf) {
            let image = Image { elf: &elf, blocks: &blocks, base, first: 0 };
            let around = Surroundings { is_free: &|_| true, is_pointed_at: &|_| false };
            let marks = counting(&elf, &blocks);
            let plan = plan(&image, &marks, &around);
            let map = base.wrapping_sub(0x4000_0000);
            let mut marker = Marker { marks: &marks, plan: &plan, map };
            let _ = emit(&image, &plan, base.wrapping_sub(0x3000_0000), &mut marker);
        }
    }
}
