//! Any serialisable value as a tree that can be changed piece by piece, and written down as a
//! snapshot file has it (docs/snapshot-format.md: bincode 2, standard configuration). Written a
//! second time here, so that the tests do not ask the code under test what a file looks like.

use serde::ser::{self, Serialize};
use std::fmt;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// An unsigned number of so many bits.
    Number(u32, u64),
    Signed(u32, i64),
    Bool(bool),
    /// A string or a byte string, and the length that it is said to have if that is another.
    Bytes(Vec<u8>, Option<u64>),
    /// A list or a map, likewise.
    List(Vec<Tree>, Option<u64>),
    /// A structure or a tuple, with the fields' names where it has them.
    Fields(Vec<(&'static str, Tree)>),
    /// A variant by its number, with what it holds.
    Variant(u32, Vec<(&'static str, Tree)>),
    Nothing,
    Something(Box<Tree>),
}

impl Tree {
    pub fn of(value: &impl Serialize) -> Self {
        value.serialize(Grow).unwrap()
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(8, n) => out.push(*n as u8),
            Self::Number(_, n) => number(*n, out),
            Self::Signed(8, n) => out.push(*n as u8),
            // Zigzag.
            Self::Signed(_, n) => number(((n << 1) ^ (n >> 63)) as u64, out),
            Self::Bool(b) => out.push(u8::from(*b)),
            Self::Bytes(bytes, claim) => {
                number(claim.unwrap_or(bytes.len() as u64), out);
                out.extend(bytes);
            }
            Self::List(items, claim) => {
                number(claim.unwrap_or(items.len() as u64), out);
                items.iter().for_each(|item| item.write(out));
            }
            Self::Fields(fields) => fields.iter().for_each(|(_, field)| field.write(out)),
            Self::Variant(which, fields) => {
                number(u64::from(*which), out);
                fields.iter().for_each(|(_, field)| field.write(out));
            }
            Self::Nothing => out.push(0),
            Self::Something(value) => {
                out.push(1);
                value.write(out);
            }
        }
    }

    /// The pieces that this one is made of.
    pub fn parts_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::List(items, _) => items.iter_mut().collect(),
            Self::Fields(fields) | Self::Variant(_, fields) => {
                fields.iter_mut().map(|(_, field)| field).collect()
            }
            Self::Something(value) => vec![value],
            _ => Vec::new(),
        }
    }

    /// The first field of this name, wherever it is.
    pub fn field(&mut self, wanted: &str) -> Option<&mut Self> {
        let named = match self {
            Self::Fields(fields) | Self::Variant(_, fields) => {
                fields.iter().position(|(name, _)| *name == wanted)
            }
            _ => None,
        };
        match named {
            Some(at) => Some(self.parts_mut().swap_remove(at)),
            None => self.parts_mut().into_iter().find_map(|part| part.field(wanted)),
        }
    }
}

/// A number as bincode's standard configuration has it.
pub fn number(n: u64, out: &mut Vec<u8>) {
    match n {
        0..=250 => out.push(n as u8),
        251..=0xffff => {
            out.push(251);
            out.extend((n as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(252);
            out.extend((n as u32).to_le_bytes());
        }
        _ => {
            out.push(253);
            out.extend(n.to_le_bytes());
        }
    }
}

/// The reverse of [`number`]: the number, and what follows it.
pub fn read_number(bytes: &[u8]) -> (u64, &[u8]) {
    let wide = |width: usize| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes[1..=width]);
        (u64::from_le_bytes(word), &bytes[1 + width..])
    };
    match bytes[0] {
        251 => wide(2),
        252 => wide(4),
        253 => wide(8),
        n => (u64::from(n), &bytes[1..]),
    }
}

#[derive(Debug)]
pub struct Impossible(String);

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Impossible {}

impl ser::Error for Impossible {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

struct Grow;

type Name = &'static str;

/// Parts that are being collected.
struct Parts {
    kind: Kind,
    parts: Vec<(Name, Tree)>,
}

enum Kind {
    List,
    Fields,
    Variant(u32),
}

impl Parts {
    fn new(kind: Kind) -> Self {
        Self { kind, parts: Vec::new() }
    }

    fn push<T: Serialize + ?Sized>(&mut self, name: Name, v: &T) -> Result<(), Impossible> {
        self.parts.push((name, v.serialize(Grow)?));
        Ok(())
    }

    fn end(self) -> Tree {
        match self.kind {
            Kind::List => Tree::List(self.parts.into_iter().map(|(_, v)| v).collect(), None),
            Kind::Fields => Tree::Fields(self.parts),
            Kind::Variant(which) => Tree::Variant(which, self.parts),
        }
    }
}

/// A method of a serializer a line: its arguments, and what it makes of them.
macro_rules! serialize {
    ($made:ty: $($name:ident $(<$T:ident>)? ($($arg:tt: $of:ty),*) => $how:expr;)*) => {
        $(fn $name $(<$T: Serialize + ?Sized>)? (self, $($arg: $of),*) -> Result<$made, Impossible> {
            Ok($how)
        })*
    };
}

impl ser::Serializer for Grow {
    type Ok = Tree;
    type Error = Impossible;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    fn is_human_readable(&self) -> bool {
        false
    }

    serialize! { Tree:
        serialize_u8(v: u8) => Tree::Number(8, v.into());
        serialize_u16(v: u16) => Tree::Number(16, v.into());
        serialize_u32(v: u32) => Tree::Number(32, v.into());
        serialize_u64(v: u64) => Tree::Number(64, v);
        serialize_i8(v: i8) => Tree::Signed(8, v.into());
        serialize_i16(v: i16) => Tree::Signed(16, v.into());
        serialize_i32(v: i32) => Tree::Signed(32, v.into());
        serialize_i64(v: i64) => Tree::Signed(64, v);
        serialize_bool(v: bool) => Tree::Bool(v);
        serialize_f32(_: f32) => none("floating-point numbers")?;
        serialize_f64(_: f64) => none("floating-point numbers")?;
        serialize_char(_: char) => none("characters")?;
        serialize_str(v: &str) => Tree::Bytes(v.into(), None);
        serialize_bytes(v: &[u8]) => Tree::Bytes(v.into(), None);
        serialize_none() => Tree::Nothing;
        serialize_some<T>(v: &T) => Tree::Something(Box::new(v.serialize(Grow)?));
        serialize_unit() => Tree::Fields(Vec::new());
        serialize_unit_struct(_: Name) => Tree::Fields(Vec::new());
        serialize_unit_variant(_: Name, which: u32, _: Name) => Tree::Variant(which, Vec::new());
        serialize_newtype_struct<T>(_: Name, v: &T) => v.serialize(Grow)?;
        serialize_newtype_variant<T>(_: Name, which: u32, _: Name, v: &T) =>
            Tree::Variant(which, vec![("", v.serialize(Grow)?)]);
    }

    serialize! { Parts:
        serialize_seq(_: Option<usize>) => Parts::new(Kind::List);
        serialize_map(_: Option<usize>) => Parts::new(Kind::List);
        serialize_tuple(_: usize) => Parts::new(Kind::Fields);
        serialize_tuple_struct(_: Name, _: usize) => Parts::new(Kind::Fields);
        serialize_struct(_: Name, _: usize) => Parts::new(Kind::Fields);
        serialize_tuple_variant(_: Name, which: u32, _: Name, _: usize) =>
            Parts::new(Kind::Variant(which));
        serialize_struct_variant(_: Name, which: u32, _: Name, _: usize) =>
            Parts::new(Kind::Variant(which));
    }
}

fn none(what: &str) -> Result<Tree, Impossible> {
    Err(Impossible(format!("no snapshot has {what}")))
}

/// A trait a line by which parts are collected, its method, and the part's name if it has one.
macro_rules! collect {
    ($($of:ident $push:ident $($name:ident)?;)*) => {
        $(impl ser::$of for Parts {
            type Ok = Tree;
            type Error = Impossible;

            fn $push<T: Serialize + ?Sized>(
                &mut self,
                $($name: Name,)?
                v: &T,
            ) -> Result<(), Impossible> {
                let names = [$($name,)? ""];
                self.push(names[0], v)
            }

            fn end(self) -> Result<Tree, Impossible> {
                Ok(self.end())
            }
        })*
    };
}

collect! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
    SerializeStruct serialize_field name;
    SerializeStructVariant serialize_field name;
}

/// An entry of a map is its key and its value.
impl ser::SerializeMap for Parts {
    type Ok = Tree;
    type Error = Impossible;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Impossible> {
        let key = v.serialize(Grow)?;
        self.parts.push(("", Tree::Fields(vec![("key", key)])));
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Impossible> {
        if let Some((_, Tree::Fields(entry))) = self.parts.last_mut() {
            entry.push(("value", v.serialize(Grow)?));
        }
        Ok(())
    }

    fn end(self) -> Result<Tree, Impossible> {
        Ok(self.end())
    }
}
