//! One tensor's entry in a header.
//!
//! Owns [`Entry`] and how it is decoded, and the texts that are no tensor. Promises to refuse what the `safetensors` crate refuses, also in fields that nobody reads:
//! numbers that no double holds, half surrogates, nesting beyond 128 levels; nothing is kept of such fields. Refuses besides
//! what the crate's derived decoder takes and the format does not know: a list where an object belongs, an object where the
//! name of a type does.

use std::fmt;

use safetensors::tensor::{Dtype, TensorInfo};
use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

pub(super) struct Entry(pub(super) TensorInfo);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let (mut dtype, mut shape, mut offsets) = (None, None, None);
                while let Some(field) = map.next_key::<String>()? {
                    match field.as_str() {
                        "dtype" => once(&mut map, &mut dtype, "dtype")?,
                        "shape" => once(&mut map, &mut shape, "shape")?,
                        "data_offsets" => once(&mut map, &mut offsets, "data_offsets")?,
                        _ => {
                            let Anything = map.next_value()?;
                        }
                    }
                }
                let Type(dtype) = dtype.ok_or_else(|| A::Error::missing_field("dtype"))?;
                let shape = shape.ok_or_else(|| A::Error::missing_field("shape"))?;
                let Offsets(start, end) = offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?;
                Ok(Entry(TensorInfo { dtype, shape, data_offsets: (start, end) }))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Takes a field's value, unless it has one.
fn once<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    field: &mut Option<T>,
    name: &'static str,
) -> Result<(), A::Error> {
    if field.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *field = Some(map.next_value()?);
    Ok(())
}

struct Type(Dtype);

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Type;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a type")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Type, E> {
                Dtype::deserialize(StrDeserializer::new(name)).map(Type)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

struct Offsets(usize, usize);

impl<'de> Deserialize<'de> for Offsets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Two;
        impl<'de> Visitor<'de> for Two {
            type Value = Offsets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two offsets, where the tensor starts and where it ends")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Offsets, A::Error> {
                let start = list.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let end = list.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                match list.next_element::<Anything>()? {
                    Some(_) => Err(A::Error::invalid_length(3, &self)),
                    None => Ok(Offsets(start, end)),
                }
            }
        }
        deserializer.deserialize_seq(Two)
    }
}

/// Texts by name, which are judged and not kept.
pub(super) struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<String, String>()?.is_some() {}
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Any JSON, read as if it were kept, and not kept. Serde's own `IgnoredAny` is told no numbers and no texts, so that
/// nobody judges them, and counts no levels.
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Anything {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}
