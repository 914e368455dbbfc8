//! Reads a type without any bytes, to see what it asks for: zeros, empty and not, one variant after
//! the other, until every place has been asked for.
//!
//! Never reads a file.

use super::text::{Named, Shape};
use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use std::fmt;

/// Readings of a type, after which what was not seen is taken to be out of reach.
const READINGS_MAX: u32 = 100_000;
/// A byte string that takes as many bytes has no length of its own.
const FIXED_BYTES_MAX: usize = 1 << 14;
/// Deeper, and a type is taken to hold itself.
const DEPTH_MAX: usize = 64;

/// The shape of `T`, from as many readings as it takes to see all of it.
pub(super) fn shape_of<T: DeserializeOwned>() -> Shape {
    let mut shape = Shape::Unknown;
    let mut choices = Choices(1);
    for _ in 0..READINGS_MAX {
        // A type may refuse what it read: another reading chooses otherwise.
        let read = T::deserialize(Reader { shape: &mut shape, choices: &mut choices, depth: 0 });
        if let Err(Refused::Contradiction(what)) = read {
            panic!("the shape of a stored type depends on its values: {what}");
        }
        if shape.unseen("").is_none() {
            return shape;
        }
    }
    let unseen = shape.unseen("").unwrap_or_default();
    panic!("the type refused whatever was read before {unseen}: its shape is not known");
}

/// Why a reading ended early.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    ByTheType(String),
    #[error("{0}")]
    Contradiction(String),
}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::ByTheType(message.to_string())
    }
}

/// Where a type can be read in several ways, one of them: the same in every test (SplitMix64).
struct Choices(u64);

impl Choices {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (((mixed ^ (mixed >> 27)) >> 8) as usize) % count.max(1)
    }
}

/// Reads zeros in one place, and notes what was asked for there.
struct Reader<'a> {
    shape: &'a mut Shape,
    choices: &'a mut Choices,
    depth: usize,
}

impl Reader<'_> {
    /// Notes that there is `shape` here, whose parts are not read yet if it is new.
    fn note(&mut self, shape: Shape) -> Result<(), Refused> {
        if *self.shape == Shape::Unknown {
            *self.shape = shape;
            return Ok(());
        }
        let is_same = match (&*self.shape, &shape) {
            (Shape::Leaf(was), Shape::Leaf(is)) => was == is,
            (Shape::Elements(was), Shape::Elements(is)) => was.len() == is.len(),
            (was, is) => std::mem::discriminant(was) == std::mem::discriminant(is),
        };
        match is_same {
            true => Ok(()),
            false => Err(Refused::Contradiction(format!("{:?} and {shape:?}", self.shape))),
        }
    }

    fn leaf(&mut self, name: &str) -> Result<(), Refused> {
        self.note(Shape::Leaf(name.to_owned()))
    }

    fn check_depth(&self) -> Result<(), Refused> {
        match self.depth < DEPTH_MAX {
            true => Ok(()),
            false => Err(Refused::Contradiction("a type that holds itself".to_owned())),
        }
    }

    /// Bytes whose visitor takes as many as it wants.
    fn bytes<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Refused> {
        let mut zeros = Zeros { left: 0, taken: 0 };
        if *self.shape != Shape::Unknown {
            return visitor.visit_seq(&mut zeros);
        }
        zeros.left = FIXED_BYTES_MAX;
        let value = visitor.visit_seq(&mut zeros)?;
        match zeros.left {
            0 => self.leaf("bytes")?,
            _ => self.leaf(&format!("bytes[{}]", zeros.taken))?,
        }
        Ok(value)
    }
}

struct Zeros {
    left: usize,
    taken: usize,
}

impl<'de> de::SeqAccess<'de> for &mut Zeros {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        (self.left, self.taken) = (self.left - 1, self.taken + 1);
        seed.deserialize(0_u8.into_deserializer()).map(Some)
    }
}

/// The parts of one place, in order.
struct Parts<'a> {
    shapes: Vec<&'a mut Shape>,
    choices: &'a mut Choices,
    depth: usize,
}

impl<'a> Parts<'a> {
    fn new(
        shapes: impl IntoIterator<Item = &'a mut Shape>,
        choices: &'a mut Choices,
        depth: usize,
    ) -> Self {
        let mut shapes: Vec<_> = shapes.into_iter().collect();
        shapes.reverse();
        Self { shapes, choices, depth: depth + 1 }
    }

    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(shape) = self.shapes.pop() else { return Ok(None) };
        let reader = Reader { shape, choices: self.choices, depth: self.depth };
        seed.deserialize(reader).map(Some)
    }
}

impl<'de> de::SeqAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        self.next(seed)
    }
}

impl<'de> de::MapAccess<'de> for Parts<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        self.next(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        self.next(seed)?.ok_or_else(|| Refused::ByTheType("a key without a value".to_owned()))
    }
}

/// One variant, chosen.
struct Variant<'a> {
    number: u32,
    reader: Reader<'a>,
}

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Refused;
    type Variant = Reader<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Reader<'a>), Refused> {
        let number: U32Deserializer<Refused> = self.number.into_deserializer();
        Ok((seed.deserialize(number)?, self.reader))
    }
}

impl<'de> de::VariantAccess<'de> for Reader<'_> {
    type Error = Refused;

    fn unit_variant(mut self) -> Result<(), Refused> {
        self.note(Shape::Elements(Vec::new()))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        de::Deserializer::deserialize_tuple(self, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        de::Deserializer::deserialize_struct(self, "", fields, visitor)
    }
}

fn unread(names: &'static [&'static str]) -> Vec<Named> {
    names.iter().map(|name| Named { name, shape: Shape::Unknown }).collect()
}

macro_rules! leaves {
    ($($method:ident $visit:ident $name:literal $zero:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Refused> {
            self.leaf($name)?;
            visitor.$visit($zero)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Refused;

    leaves! {
        deserialize_bool visit_bool "bool" false;
        deserialize_u8 visit_u8 "u8" 0;
        deserialize_u16 visit_u16 "u16" 0;
        deserialize_u32 visit_u32 "u32" 0;
        deserialize_u64 visit_u64 "u64" 0;
        deserialize_u128 visit_u128 "u128" 0;
        deserialize_i8 visit_i8 "i8" 0;
        deserialize_i16 visit_i16 "i16" 0;
        deserialize_i32 visit_i32 "i32" 0;
        deserialize_i64 visit_i64 "i64" 0;
        deserialize_i128 visit_i128 "i128" 0;
        deserialize_f32 visit_f32 "f32" 0.0;
        deserialize_f64 visit_f64 "f64" 0.0;
        deserialize_char visit_char "char" 'a';
        deserialize_str visit_borrowed_str "string" "";
        deserialize_string visit_borrowed_str "string" "";
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused::Contradiction("the encoding does not say what it holds".to_owned()))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.bytes(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Shape::Elements(Vec::new()))?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Shape::Option(Box::default()))?;
        self.check_depth()?;
        let Self { shape: Shape::Option(inner), choices, depth } = self else { unreachable!() };
        match choices.below(2) {
            0 => visitor.visit_none(),
            _ => visitor.visit_some(Reader { shape: &mut *inner, choices, depth: depth + 1 }),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Shape::List(Box::default()))?;
        self.check_depth()?;
        let Self { shape: Shape::List(inner), choices, depth } = self else { unreachable!() };
        let count = choices.below(2);
        visitor.visit_seq(Parts::new([&mut **inner].into_iter().take(count), choices, depth))
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Shape::Map(Box::default(), Box::default()))?;
        self.check_depth()?;
        let Self { shape: Shape::Map(key, value), choices, depth } = self else { unreachable!() };
        let count = 2 * choices.below(2);
        let both = [&mut **key, &mut **value];
        visitor.visit_map(Parts::new(both.into_iter().take(count), choices, depth))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        mut self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note(Shape::Elements(vec![Shape::Unknown; len]))?;
        self.check_depth()?;
        let Self { shape: Shape::Elements(all), choices, depth } = self else { unreachable!() };
        visitor.visit_seq(Parts::new(all, choices, depth))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note(Shape::Fields(unread(fields)))?;
        self.check_depth()?;
        let Self { shape: Shape::Fields(all), choices, depth } = self else { unreachable!() };
        let shapes = all.iter_mut().map(|one| &mut one.shape);
        visitor.visit_seq(Parts::new(shapes, choices, depth))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note(Shape::Variants(unread(variants)))?;
        self.check_depth()?;
        let Self { shape: Shape::Variants(all), choices, depth } = self else { unreachable!() };
        let number = choices.below(all.len());
        let reader = Reader { shape: &mut all[number].shape, choices, depth: depth + 1 };
        visitor.visit_enum(Variant { number: number as u32, reader })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
