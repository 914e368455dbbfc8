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

/// Parts that are being collected.
struct Parts {
    kind: Kind,
    parts: Vec<(&'static str, Tree)>,
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

    fn push<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Result<(), Impossible> {
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

macro_rules! numbers {
    ($($name:ident $from:ty => $kind:ident $bits:literal $to:ty;)*) => {
        $(fn $name(self, v: $from) -> Result<Tree, Impossible> {
            Ok(Tree::$kind($bits, v as $to))
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

    numbers! {
        serialize_u8 u8 => Number 8 u64;
        serialize_u16 u16 => Number 16 u64;
        serialize_u32 u32 => Number 32 u64;
        serialize_u64 u64 => Number 64 u64;
        serialize_i8 i8 => Signed 8 i64;
        serialize_i16 i16 => Signed 16 i64;
        serialize_i32 i32 => Signed 32 i64;
        serialize_i64 i64 => Signed 64 i64;
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, v: bool) -> Result<Tree, Impossible> {
        Ok(Tree::Bool(v))
    }

    fn serialize_f32(self, _: f32) -> Result<Tree, Impossible> {
        Err(ser::Error::custom("no snapshot has floating-point numbers"))
    }

    fn serialize_f64(self, _: f64) -> Result<Tree, Impossible> {
        Err(ser::Error::custom("no snapshot has floating-point numbers"))
    }

    fn serialize_char(self, _: char) -> Result<Tree, Impossible> {
        Err(ser::Error::custom("no snapshot has characters"))
    }

    fn serialize_str(self, v: &str) -> Result<Tree, Impossible> {
        Ok(Tree::Bytes(v.into(), None))
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<Tree, Impossible> {
        Ok(Tree::Bytes(v.into(), None))
    }

    fn serialize_none(self) -> Result<Tree, Impossible> {
        Ok(Tree::Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Result<Tree, Impossible> {
        Ok(Tree::Something(Box::new(v.serialize(Grow)?)))
    }

    fn serialize_unit(self) -> Result<Tree, Impossible> {
        Ok(Tree::Fields(Vec::new()))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Tree, Impossible> {
        Ok(Tree::Fields(Vec::new()))
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        which: u32,
        _: &'static str,
    ) -> Result<Tree, Impossible> {
        Ok(Tree::Variant(which, Vec::new()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        v: &T,
    ) -> Result<Tree, Impossible> {
        v.serialize(Grow)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        which: u32,
        _: &'static str,
        v: &T,
    ) -> Result<Tree, Impossible> {
        Ok(Tree::Variant(which, vec![("", v.serialize(Grow)?)]))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, Impossible> {
        Ok(Parts::new(Kind::List))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, Impossible> {
        Ok(Parts::new(Kind::Fields))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, Impossible> {
        Ok(Parts::new(Kind::Fields))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        which: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, Impossible> {
        Ok(Parts::new(Kind::Variant(which)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts, Impossible> {
        Ok(Parts::new(Kind::List))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts, Impossible> {
        Ok(Parts::new(Kind::Fields))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        which: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, Impossible> {
        Ok(Parts::new(Kind::Variant(which)))
    }
}

macro_rules! collect {
    ($($of:ident $push:ident;)*) => {
        $(impl ser::$of for Parts {
            type Ok = Tree;
            type Error = Impossible;

            fn $push<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Impossible> {
                self.push("", v)
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
}

macro_rules! collect_named {
    ($($of:ident;)*) => {
        $(impl ser::$of for Parts {
            type Ok = Tree;
            type Error = Impossible;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                v: &T,
            ) -> Result<(), Impossible> {
                self.push(name, v)
            }

            fn end(self) -> Result<Tree, Impossible> {
                Ok(self.end())
            }
        })*
    };
}

collect_named! {
    SerializeStruct;
    SerializeStructVariant;
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
