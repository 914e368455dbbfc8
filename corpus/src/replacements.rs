//! Input-to-state correspondence (RedQueen, NDSS 2019): where an operand of a comparison stands in an
//! input, the other operand is put in its place, and the comparison turns out otherwise.
//!
//! LibAFL's `I2SRandReplaceBinonly` is not used: it knows integers of whole widths in little-endian
//! order, never resizes, and tries one place of one pair at random. Its `AflppRedQueen` asks for
//! AFL++'s own maps, and a colourised input beside the entry's own. Here all places are tried, once,
//! in an order that follows from the input and its comparisons alone.
//!
//! - An integer is looked for in both byte orders, in each width that both operands fit into, and
//!   as a decimal number. Where the comparison asks which one is less, the values beside the
//!   operand are tried, too.
//! - A string is replaced with its length changed, and in place.
//!
//! Never runs an input.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use memchr::memmem;

use crate::comparison::{Comparison, ComparisonKind};
use crate::edit::Edit;
use crate::joins::joined;

/// Edits for one input.
const EDITS_MAX: usize = 256;

/// Pairs of operands that are looked for in one input.
const PAIRS_MAX: usize = 2048;

/// Edits for one comparison, with one pair of operands.
const EDITS_EACH_MAX: usize = 32;

/// Places at which one value is replaced: short ones stand nearly everywhere.
const PLACES_MAX: usize = 16;

/// Places at which a single byte is replaced: havoc does that as well.
const BYTE_PLACES_MAX: usize = 4;

/// Edits of one comparison, over all inputs, beyond which it gets no more unless they found
/// something.
const TRIES_MAX: u64 = 128;

/// What an edit counts for that made a run slow: sizes that a program takes at their word.
const SLOW_TRIES: u64 = 32;

/// What became of the edits of each comparison.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    of: HashMap<u32, SiteRecord>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SiteRecord {
    tries: u64,
    finds: u64,
}

impl Sites {
    /// Whether edits of this comparison are of use, as far as is known.
    fn is_worth_it(&self, site: u32) -> bool {
        let record = self.of.get(&site).copied().unwrap_or_default();
        record.tries < TRIES_MAX.saturating_mul(record.finds + 1)
    }

    /// Counts an edit that was run.
    pub(crate) fn tried(&mut self, site: u32) {
        self.of.entry(site).or_default().tries += 1;
    }

    /// Counts an edit whose run was stopped by its limit.
    pub(crate) fn was_slow(&mut self, site: u32) {
        self.of.entry(site).or_default().tries += SLOW_TRIES;
    }

    /// Counts an edit that found something.
    pub(crate) fn found(&mut self, site: u32) {
        self.of.entry(site).or_default().finds += 1;
    }
}

/// An edit, and the comparison that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replacement {
    pub(crate) site: u32,
    pub(crate) edit: Edit,
}

/// The edits of `input`, which makes `comparisons`, that may have one of them turn out otherwise;
/// none longer than `max_len` bytes. Strings come first, and then the widest integers: there are
/// few of them, and nothing else passes these.
pub(crate) fn replacements(
    input: &[u8],
    comparisons: &[Comparison],
    max_len: usize,
    sites: &Sites,
) -> Vec<Replacement> {
    let mut seen = HashSet::new();
    let joined = joined(input, comparisons);
    let mut unequal: Vec<&Comparison> = joined.iter().chain(comparisons).collect();
    unequal.retain(|c| {
        c.left != c.right && seen.insert((c.kind, &c.left, &c.right)) && sites.is_worth_it(c.site)
    });
    unequal.sort_by_key(|c| rank(c));
    unequal.truncate(PAIRS_MAX);
    let present = PairSet::of(input);
    let mut all = Vec::new();
    let mut known = HashSet::new();
    for comparison in unequal {
        let mut edits = Vec::new();
        for (have, want) in
            [(&comparison.left, &comparison.right), (&comparison.right, &comparison.left)]
        {
            let mut finder = Finder { input, present: &present, edits: &mut edits };
            match comparison.kind {
                ComparisonKind::Integer { is_ordering } => {
                    finder.integer(have, want, is_ordering);
                }
                ComparisonKind::Float => finder.in_both_orders(have, want),
                ComparisonKind::Bytes => finder.bytes(have, want),
                ComparisonKind::Text => finder.text(have, want),
            }
        }
        edits.retain(|edit| edit.changes(input) && edit.len_of(input) <= max_len);
        edits.retain(|edit| known.insert(edit.clone()));
        edits.truncate(EDITS_EACH_MAX);
        let site = comparison.site;
        all.extend(edits.into_iter().map(|edit| Replacement { site, edit }));
        if all.len() >= EDITS_MAX {
            all.truncate(EDITS_MAX);
            break;
        }
    }
    all
}

/// What comes first.
fn rank(comparison: &Comparison) -> usize {
    match comparison.kind {
        ComparisonKind::Text | ComparisonKind::Bytes => 0,
        ComparisonKind::Integer { .. } | ComparisonKind::Float => {
            64_usize.saturating_sub(comparison.left.len())
        }
    }
}

/// Looks for an operand in an input.
struct Finder<'a> {
    input: &'a [u8],
    present: &'a PairSet,
    edits: &'a mut Vec<Edit>,
}

impl Finder<'_> {
    fn integer(&mut self, have: &[u8], want: &[u8], is_ordering: bool) {
        let (Some(have), Some(want)) = (Integer::new(have), Integer::new(want)) else { return };
        let beside = [want.plus(1), want.plus(u64::MAX)];
        let wants = [want].into_iter().chain(beside.into_iter().filter(|_| is_ordering));
        for want in wants {
            for bytes in [8, 4, 2, 1] {
                if let (Some(have), Some(want)) = (have.cut(bytes), want.cut(bytes)) {
                    self.in_both_orders(&have, &want);
                }
            }
            self.decimal(have, want);
        }
    }

    fn in_both_orders(&mut self, have: &[u8], want: &[u8]) {
        let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
        self.overwrite(have, want);
        if have.len() > 1 {
            self.overwrite(&reversed(have), &reversed(want));
        }
    }

    /// Numbers of two digits and more: single ones stand for much else.
    fn decimal(&mut self, have: Integer, want: Integer) {
        let is_short = |number: i128| (-9..=9).contains(&number);
        for (have, want) in have.readings().into_iter().zip(want.readings()) {
            if !is_short(have) {
                self.replace(have.to_string().as_bytes(), want.to_string().as_bytes());
            }
        }
    }

    /// Bytes of one length. An input that ends too early has only their beginning, and what a
    /// program has beyond it are often zeros.
    fn bytes(&mut self, have: &[u8], want: &[u8]) {
        self.overwrite(have, want);
        let zeros = have.iter().rev().take_while(|byte| **byte == 0).count();
        let stem = have.get(..have.len() - zeros).unwrap_or_default();
        if zeros > 0 && stem.len() > 1 {
            self.overwrite(stem, want);
        }
        self.overwrite_at_end(have, want);
    }

    /// Strings: by their own length, in place of the whole word that was compared, in place, and in
    /// place with what ends a string.
    fn text(&mut self, have: &[u8], want: &[u8]) {
        let ended: Vec<u8> = want.iter().copied().chain([0]).collect();
        for at in self.text_places(have) {
            self.edits.push(Edit { range: at..at + have.len(), bytes: want.to_vec() });
            self.edits.push(Edit { range: self.word_at(at), bytes: want.to_vec() });
            self.edits.push(Edit::overwrite(at, want));
            self.edits.push(Edit::overwrite(at, &ended));
        }
        self.overwrite_at_end(have, want);
    }

    /// The word that starts at `at`: only as much of it as the other string is long is compared.
    fn word_at(&self, at: usize) -> Range<usize> {
        let is_inside = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
        let rest = self.input.get(at..).unwrap_or_default();
        at..at + rest.iter().take_while(is_inside).count()
    }

    fn overwrite(&mut self, have: &[u8], want: &[u8]) {
        let edits = self.places(have).map(|at| Edit::overwrite(at, want));
        let edits: Vec<Edit> = edits.collect();
        self.edits.extend(edits);
    }

    /// Where the input's end is the beginning of `have`, and there is more of it.
    fn overwrite_at_end(&mut self, have: &[u8], want: &[u8]) {
        let starts = (1..have.len()).rev().filter_map(|part| self.input.len().checked_sub(part));
        let is_there = |at: &usize| {
            let end = self.input.get(*at..).unwrap_or_default();
            have.starts_with(end)
        };
        let found = starts.filter(is_there).take(1).map(|at| Edit::overwrite(at, want));
        let found: Vec<Edit> = found.collect();
        self.edits.extend(found);
    }

    /// As [`overwrite`](Self::overwrite), by whatever length `want` has.
    fn replace(&mut self, have: &[u8], want: &[u8]) {
        let edit = |at| Edit { range: at..at + have.len(), bytes: want.to_vec() };
        let edits: Vec<Edit> = self.places(have).map(edit).collect();
        self.edits.extend(edits);
    }

    /// The first places where `have` stands.
    fn places(&self, have: &[u8]) -> impl Iterator<Item = usize> + use<> {
        let most = if have.len() == 1 { BYTE_PLACES_MAX } else { PLACES_MAX };
        let places: Vec<usize> = match have {
            [] => Vec::new(),
            _ if !self.present.may_have(have) => Vec::new(),
            _ => memmem::find_iter(self.input, have).take(most).collect(),
        };
        places.into_iter()
    }

    /// As [`places`](Self::places); where there is none, whatever the case of its letters: programs
    /// compare what they have made lower case.
    fn text_places(&self, have: &[u8]) -> impl Iterator<Item = usize> + use<> {
        let mut places: Vec<usize> = self.places(have).collect();
        if places.is_empty() && have.len() > 1 && have.iter().any(u8::is_ascii_alphabetic) {
            let windows = self.input.windows(have.len()).enumerate();
            let same = windows.filter(|(_, window)| window.eq_ignore_ascii_case(have));
            places = same.map(|(at, _)| at).take(PLACES_MAX).collect();
        }
        places.into_iter()
    }
}

/// Which pairs of bytes stand side by side in an input: most operands have one that does not, and
/// need not be looked for.
struct PairSet {
    words: Vec<u64>,
}

impl PairSet {
    fn of(input: &[u8]) -> Self {
        let mut words = vec![0; (1 << 16) / 64];
        for pair in input.windows(2) {
            let (word, bit) = Self::place(pair);
            if let Some(word) = words.get_mut(word) {
                *word |= bit;
            }
        }
        Self { words }
    }

    /// Where a pair is, as a word and a bit of it.
    fn place(pair: &[u8]) -> (usize, u64) {
        let number = pair.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        (number / 64, 1 << (number % 64))
    }

    /// Whether the input may have `bytes` in it.
    fn may_have(&self, bytes: &[u8]) -> bool {
        bytes
            .windows(2)
            .map(Self::place)
            .all(|(word, bit)| self.words.get(word).is_some_and(|bits| bits & bit != 0))
    }
}

/// An operand that is an integer.
#[derive(Clone, Copy, Debug)]
struct Integer {
    value: u64,
    bytes: usize,
}

impl Integer {
    fn new(operand: &[u8]) -> Option<Self> {
        let mut word = [0; 8];
        word.get_mut(..operand.len())?.copy_from_slice(operand);
        (!operand.is_empty())
            .then(|| Self { value: u64::from_le_bytes(word), bytes: operand.len() })
    }

    fn mask(bytes: usize) -> u64 {
        u64::MAX >> (64 - 8 * bytes.clamp(1, 8))
    }

    fn plus(self, more: u64) -> Self {
        Self { value: self.value.wrapping_add(more) & Self::mask(self.bytes), ..self }
    }

    /// As a signed number.
    fn signed(self) -> i64 {
        let unused = 64 - 8 * self.bytes.clamp(1, 8) as u32;
        (self.value << unused).cast_signed() >> unused
    }

    /// Its lowest `bytes` bytes, if they say all of it, as an unsigned or as a signed number.
    fn cut(self, bytes: usize) -> Option<Vec<u8>> {
        let is_unsigned = self.value <= Self::mask(bytes);
        let low = Self { value: self.value & Self::mask(bytes), bytes };
        let is_whole = bytes <= self.bytes && (is_unsigned || low.signed() == self.signed());
        is_whole.then(|| self.value.to_le_bytes().into_iter().take(bytes).collect())
    }

    /// What it may be a reading of.
    fn readings(self) -> [i128; 2] {
        [i128::from(self.value), i128::from(self.signed())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(kind: ComparisonKind, left: &[u8], right: &[u8]) -> Comparison {
        Comparison { site: 1, kind, left: left.to_vec(), right: right.to_vec() }
    }

    fn edited(input: &[u8], comparison: Comparison) -> Vec<Vec<u8>> {
        let sites = Sites::default();
        let all = replacements(input, &[comparison], 64, &sites);
        let apply = |replacement: &Replacement| {
            let mut out = Vec::new();
            replacement.edit.apply(input, &mut out);
            out
        };
        all.iter().map(apply).collect()
    }

    const EQUALITY: ComparisonKind = ComparisonKind::Integer { is_ordering: false };
    const ORDERING: ComparisonKind = ComparisonKind::Integer { is_ordering: true };

    fn has(found: &[Vec<u8>], wanted: &[u8]) -> bool {
        found.iter().any(|input| input == wanted)
    }

    #[test]
    fn an_integer_is_replaced_in_both_byte_orders() {
        let wanted = 0xdead_beef_u32.to_le_bytes();
        let found = edited(b"..ABCD..", compared(EQUALITY, b"ABCD", &wanted));
        assert!(has(&found, b"..\xef\xbe\xad\xde.."), "{found:x?}");
        let found = edited(b"..ABCD..", compared(EQUALITY, &wanted, b"DCBA"));
        assert!(has(&found, b"..\xde\xad\xbe\xef.."), "{found:x?}");
    }

    #[test]
    fn an_integer_is_replaced_in_the_width_that_it_needs() {
        let wide = |value: i64| value.to_le_bytes();
        let found = edited(b".\x41\x01.", compared(EQUALITY, &wide(0x141), &wide(0x1234)));
        assert!(has(&found, b".\x34\x12."), "{found:x?}");
        let found = edited(b".\xfe\xff.", compared(EQUALITY, &wide(-2), &wide(-300)));
        assert!(has(&found, b".\xd4\xfe."), "sign-extended: {found:x?}");
        let found = edited(b".\x41\x01.", compared(EQUALITY, &wide(0x141), &wide(0x12_3456)));
        assert!(!found.iter().any(|input| input.len() == 4), "no room: {found:x?}");
    }

    #[test]
    fn a_number_in_digits_is_replaced_and_may_get_longer() {
        let number = |value: i32| value.to_le_bytes();
        let found = edited(b"n=1234;", compared(EQUALITY, &number(1234), &number(9_000_001)));
        assert!(has(&found, b"n=9000001;"), "{found:x?}");
        let found = edited(b"n=-12;", compared(EQUALITY, &number(-12), &number(-7)));
        assert!(has(&found, b"n=-7;"), "{found:x?}");
    }

    #[test]
    fn the_values_beside_a_limit_are_tried_where_it_is_one() {
        let number = |value: u16| value.to_le_bytes();
        let limit = compared(ORDERING, &number(0x4142), &number(0x0500));
        let found = edited(b"BA", limit);
        for value in [0x04ff, 0x0500, 0x0501] {
            assert!(has(&found, &number(value)), "{value:x}: {found:x?}");
        }
        let found = edited(b"BA", compared(EQUALITY, &number(0x4142), &number(0x0500)));
        assert!(!has(&found, &number(0x0501)), "{found:x?}");
    }

    #[test]
    fn a_string_is_replaced_by_its_length_and_in_place() {
        let text = compared(ComparisonKind::Text, b"ab", b"keyword");
        let found = edited(b"<AB>......", text.clone());
        assert!(has(&found, b"<keyword>......"), "{found:?}");
        assert!(has(&found, b"<keyword.."), "{found:?}");
        let found = edited(b"<a", text);
        assert!(has(&found, b"<keyword"), "the input ends too early: {found:?}");
    }

    #[test]
    fn a_string_takes_the_place_of_a_whole_word() {
        let text = compared(ComparisonKind::Text, b"of no ", b"extent");
        let found = edited(b"matrix of no use", text);
        assert!(has(&found, b"matrix extent no use"), "{found:?}");
    }

    #[test]
    fn parts_of_one_comparison_are_replaced_together() {
        let parts =
            [compared(EQUALITY, b"abcdefgh", b"open ses"), compared(EQUALITY, b"ijkl", b"ame\0")];
        let found = replacements(b"abcdefghijkl", &parts, 64, &Sites::default());
        let whole = Edit::overwrite(0, b"open sesame\0");
        assert_eq!(found.first().map(|first| &first.edit), Some(&whole));
    }

    #[test]
    fn bytes_are_replaced_where_the_input_ends_in_them() {
        let bytes = compared(ComparisonKind::Bytes, b"abc\0\0\0", b"sixteen"[..6].as_ref());
        let found = edited(b"..abc", bytes);
        assert!(has(&found, b"..sixtee"), "{found:?}");
    }

    #[test]
    fn nothing_is_tried_that_changes_nothing_or_is_too_long() {
        assert_eq!(edited(b"abcd", compared(EQUALITY, b"abcd", b"abcd")), [b""; 0]);
        assert_eq!(edited(b"xyz", compared(EQUALITY, b"abcd", b"efgh")), [b""; 0]);
        let long = [b'k'; 63];
        let found = edited(b"<ab>", compared(ComparisonKind::Text, b"ab", &long));
        assert!(found.iter().all(|input| input.len() <= 64), "{found:?}");
        assert_eq!(edited(b"", compared(ComparisonKind::Text, b"", b"x")), [b""; 0]);
    }

    #[test]
    fn a_comparison_of_no_use_is_passed_over_after_a_while() {
        let mut sites = Sites::default();
        let comparison = [compared(EQUALITY, b"abcd", b"efgh")];
        for _ in 0..TRIES_MAX {
            assert!(!replacements(b"abcd", &comparison, 64, &sites).is_empty());
            sites.tried(1);
        }
        assert!(replacements(b"abcd", &comparison, 64, &sites).is_empty());
        sites.found(1);
        assert!(!replacements(b"abcd", &comparison, 64, &sites).is_empty());
    }

    #[test]
    fn there_is_an_end_to_what_is_tried() {
        let input = [b'a'; 4096];
        let comparisons: Vec<_> = (0..5000_u32)
            .map(|site| Comparison {
                site,
                kind: EQUALITY,
                left: b"aaaa".to_vec(),
                right: site.to_le_bytes().to_vec(),
            })
            .collect();
        let all = replacements(&input, &comparisons, 8192, &Sites::default());
        assert_eq!(all.len(), EDITS_MAX);
    }

    #[test]
    fn operands_that_no_comparison_has_are_no_panic() {
        for (left, right) in [(&b""[..], &b"x"[..]), (&[0; 40], &[1; 9]), (b"abc", b"abcd")] {
            for kind in [EQUALITY, ORDERING, ComparisonKind::Float, ComparisonKind::Bytes] {
                edited(b"abc\0\0\0\0\0", compared(kind, left, right));
            }
        }
    }
}
