//! Changes a tree of values as somebody would who wants to break its reader.

use super::tree::Tree;
use rand::RngExt;
use rand::rngs::StdRng;

/// Changes one to three places.
pub fn mutate(tree: &mut Tree, noise: &mut StdRng) {
    for _ in 0..noise.random_range(1..=3) {
        one(tree, noise);
    }
}

/// Walks down to a random piece, each level's pieces alike, so that long lists of numbers get no
/// more than their share; and changes it.
fn one(tree: &mut Tree, noise: &mut StdRng) {
    let stays = noise.random_range(0..12) == 0;
    let mut parts = tree.parts_mut();
    if !stays && !parts.is_empty() {
        let which = noise.random_range(0..parts.len());
        return one(parts.swap_remove(which), noise);
    }
    match tree {
        Tree::Number(bits, n) => *n = interesting(*n, noise) & (u64::MAX >> (64 - *bits)),
        Tree::Signed(_, n) => *n = interesting(n.cast_unsigned(), noise).cast_signed(),
        Tree::Bool(b) => *b = !*b,
        Tree::Bytes(bytes, claim) => self::bytes(bytes, claim, noise),
        Tree::List(items, claim) => list(items, claim, noise),
        Tree::Fields(fields) => self::fields(fields, noise),
        Tree::Variant(which, fields) => match noise.random_range(0..3) {
            0 => self::fields(fields, noise),
            _ => *which = interesting(u64::from(*which), noise) as u32 % 20,
        },
        Tree::Nothing => {
            let n = interesting(0, noise);
            *tree = Tree::Something(Box::new(Tree::Number(64, n)));
        }
        Tree::Something(_) => *tree = Tree::Nothing,
    }
}

/// A number near something that code may compare `n` with.
pub fn interesting(n: u64, noise: &mut StdRng) -> u64 {
    let power = 1_u64 << noise.random_range(0..64);
    match noise.random_range(0..12) {
        0 => 0,
        1 => u64::MAX,
        2 => power,
        3 => power.wrapping_sub(1),
        4 => n.wrapping_add(1),
        5 => n.wrapping_sub(1),
        6 => n ^ power,
        7 => n.wrapping_neg(),
        8 => n.wrapping_add(0x1000),
        9 => n.wrapping_sub(0x1000),
        10 => u64::MAX << noise.random_range(0..64),
        _ => noise.random(),
    }
}

fn bytes(bytes: &mut Vec<u8>, claim: &mut Option<u64>, noise: &mut StdRng) {
    let length = bytes.len();
    match noise.random_range(0..6) {
        0 => *claim = Some(interesting(length as u64, noise)),
        1 => bytes.truncate(noise.random_range(0..=length)),
        2 => bytes.extend(std::iter::repeat_n(noise.random::<u8>(), noise.random_range(1..300))),
        _ => {
            for _ in 0..noise.random_range(1..4) {
                if let Some(byte) = bytes.get_mut(noise.random_range(0..length.max(1))) {
                    *byte = interesting(u64::from(*byte), noise) as u8;
                }
            }
        }
    }
}

fn list(items: &mut Vec<Tree>, claim: &mut Option<u64>, noise: &mut StdRng) {
    let length = items.len();
    let any = noise.random_range(0..length.max(1));
    match (noise.random_range(0..8), items.get(any).cloned()) {
        (0, _) => *claim = Some(interesting(length as u64, noise)),
        (1, _) => items.truncate(any),
        (2, Some(item)) => items.insert(noise.random_range(0..=length), item),
        (3, Some(item)) => {
            let many = 1 << noise.random_range(0..10);
            items.extend(std::iter::repeat_n(item, many));
        }
        (4, Some(_)) => drop(items.remove(any)),
        (5, _) => items.reverse(),
        (6, _) => items.clear(),
        (_, Some(_)) => items.swap(any, noise.random_range(0..length)),
        // An empty list that gets something.
        (_, None) => items.push(Tree::Number(8, 0)),
    }
}

fn fields(fields: &mut Vec<(&'static str, Tree)>, noise: &mut StdRng) {
    let length = fields.len();
    if length == 0 {
        return;
    }
    let any = noise.random_range(0..length);
    match noise.random_range(0..3) {
        0 => drop(fields.remove(any)),
        1 => fields.insert(any, fields[any].clone()),
        _ => fields.swap(any, noise.random_range(0..length)),
    }
}
