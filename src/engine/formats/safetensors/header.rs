//! The JSON header of a safetensors file, whoever wrote it.
//!
//! Owns: parsing it into tensors. Must not know: files.
//! Invariant: what is kept of a header is bounded by its number of tensors, never by what stands in an entry; the
//! tensors cover the data from its first byte to its last, without a hole.

use crate::tensor::{DType, TensorInfo};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::collections::HashSet;
use std::fmt;

/// Most tensors of a model. The largest mixtures of experts have about 150 000.
pub(super) const MAX_TENSORS: usize = 1 << 18;
/// Longest tensor name, bytes; as for GGUF.
const MAX_NAME: usize = 1024;
const MAX_DIMS: usize = 8;

type Parsed<T> = std::result::Result<T, String>;

/// Why there are no more.
pub(super) fn too_many() -> String {
    format!("more than {MAX_TENSORS} tensors")
}

/// Parses a header over `data_len` bytes of data; offsets stay relative to the data.
pub fn parse_header(header: &[u8], data_len: u64) -> Parsed<Vec<TensorInfo>> {
    let invalid = |e: serde_json::Error| format!("the header is not valid: {e}");
    let mut input = serde_json::Deserializer::from_slice(header);
    let entries = input.deserialize_map(Header).map_err(invalid)?;
    input.end().map_err(invalid)?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        tensors.push(entry.tensor(name, data_len)?);
    }
    tensors.sort_by_key(|t| (t.offset, t.bytes));
    let mut end = 0;
    for tensor in &tensors {
        let name = &tensor.name;
        if tensor.offset < end {
            return Err(format!("tensor {name} overlaps the one before it"));
        }
        if tensor.offset > end {
            return Err(format!(
                "{} data bytes before tensor {name} belong to no tensor",
                tensor.offset - end
            ));
        }
        end = tensor.offset + tensor.bytes;
    }
    if end < data_len && !tensors.is_empty() {
        return Err(format!("the last {} bytes belong to no tensor", data_len - end));
    }
    Ok(tensors)
}

/// The top-level object; a key given twice is refused, which `serde_json::Map` would hide.
struct Header;

impl<'de> Visitor<'de> for Header {
    type Value = Vec<(String, Entry)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            check_name(&name).map_err(A::Error::custom)?;
            if seen.len() == MAX_TENSORS {
                return Err(A::Error::custom(too_many()));
            }
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("tensor {name} is listed twice")));
            }
            let entry = map.next_value_seed(EntryOf(&name))?;
            entries.push((name, entry));
        }
        Ok(entries)
    }
}

/// Names go into other files, pages, logs and databases.
fn check_name(name: &str) -> Parsed<()> {
    if name.is_empty() {
        return Err("a tensor has an empty name".into());
    }
    if name.len() > MAX_NAME {
        return Err(format!(
            "the tensor name {:?} has {} bytes; at most {MAX_NAME} are read",
            shown(name),
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!(
            "the tensor name {:?} holds a control character",
            shown(name)
        ));
    }
    Ok(())
}

fn shown(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// One tensor as it stands in the header; what is missing or of another type is `None`.
#[derive(Default)]
struct Entry {
    dtype: Option<String>,
    shape: Option<Numbers>,
    offsets: Option<Numbers>,
}

impl Entry {
    fn tensor(self, name: String, data_len: u64) -> Parsed<TensorInfo> {
        let text = self.dtype.ok_or_else(|| format!("tensor {name} has no dtype"))?;
        let dtype = DType::from_name(&text)
            .filter(|d| d.to_ggml().is_none_or(|g| !g.is_quantized()))
            .ok_or_else(|| format!("tensor {name} has the unknown dtype {text:?}"))?;
        let shape = self
            .shape
            .ok_or_else(|| format!("tensor {name} has no shape of whole numbers"))?;
        if shape.count > MAX_DIMS {
            return Err(format!(
                "tensor {name} has {} dimensions; at most {MAX_DIMS} are read",
                shape.count
            ));
        }
        let shape = shape.first;
        let offsets = self.offsets.map(|o| (o.count, o.first));
        let Some((2, offsets)) = offsets else {
            return Err(format!("tensor {name} has no data_offsets [begin, end]"));
        };
        let (begin, end) = (offsets[0], offsets[1]);
        if begin > end || end > data_len {
            return Err(format!(
                "tensor {name} spans {begin}..{end} of {data_len} data bytes"
            ));
        }
        let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        let width = dtype.row_bytes(1).unwrap_or(1) as u64;
        let want = elements.and_then(|n| n.checked_mul(width));
        if want != Some(end - begin) {
            return Err(format!(
                "tensor {name}: {text} {shape:?} does not take {} bytes",
                end - begin
            ));
        }
        Ok(TensorInfo {
            name,
            dtype,
            shape: shape.into_iter().map(|d| d as usize).collect(),
            file: 0,
            offset: begin,
            bytes: end - begin,
        })
    }
}

/// Reads the entry of the tensor of that name.
struct EntryOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for EntryOf<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Entry, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EntryOf<'_> {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object for tensor {}", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut entry = Entry::default();
        let mut seen = [false; 3];
        while let Some(key) = map.next_key::<String>()? {
            let place = ["dtype", "shape", "data_offsets"].iter().position(|k| *k == key);
            if place.is_some_and(|place| std::mem::replace(&mut seen[place], true)) {
                return Err(A::Error::custom(format!("tensor {} has {key} twice", self.0)));
            }
            match place {
                Some(0) => entry.dtype = map.next_value::<Text>()?.0,
                Some(1) => entry.shape = map.next_value::<MaybeNumbers>()?.0,
                Some(_) => entry.offsets = map.next_value::<MaybeNumbers>()?.0,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(entry)
    }
}

/// The length of a list of whole numbers, and its first ones.
#[derive(Default)]
struct Numbers {
    count: usize,
    first: Vec<u64>,
}

/// `None` for anything but a list of whole numbers.
struct MaybeNumbers(Option<Numbers>);
/// `None` for anything but a whole number.
struct Whole(Option<u64>);
/// `None` for anything but text; long texts are cut.
struct Text(Option<String>);

/// Accepts any JSON value and keeps what `T` wants of it.
macro_rules! lenient {
    ($ty:ident, $visitor:ident { $($method:item)* } $($other:ident($of:ty))*) => {
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                input.deserialize_any($visitor)
            }
        }

        struct $visitor;

        impl<'de> Visitor<'de> for $visitor {
            type Value = $ty;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            $($method)*

            $(fn $other<E>(self, _: $of) -> Result<$ty, E> {
                Ok($ty(None))
            })*

            fn visit_unit<E>(self) -> Result<$ty, E> {
                Ok($ty(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$ty, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok($ty(None))
            }
        }
    };
}

lenient!(Whole, WholeVisitor {
    fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole(Some(number)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Whole, A::Error> {
        drain(seq)?;
        Ok(Whole(None))
    }
} visit_i64(i64) visit_f64(f64) visit_bool(bool) visit_str(&str));

lenient!(Text, TextVisitor {
    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Some(shown(text))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Text, A::Error> {
        drain(seq)?;
        Ok(Text(None))
    }
} visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_bool(bool));

lenient!(MaybeNumbers, NumbersVisitor {
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MaybeNumbers, A::Error> {
        let mut numbers = Some(Numbers::default());
        while let Some(Whole(number)) = seq.next_element()? {
            let (Some(list), Some(number)) = (&mut numbers, number) else {
                numbers = None;
                continue;
            };
            list.count += 1;
            if list.count <= MAX_DIMS {
                list.first.push(number);
            }
        }
        Ok(MaybeNumbers(numbers))
    }
} visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_bool(bool) visit_str(&str));

fn drain<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
