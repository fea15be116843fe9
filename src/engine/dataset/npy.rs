//! `NumPy` arrays in their own file format.
//!
//! Owns: the header: a magic number, a version, a Python dictionary as text. Must not know: what the numbers mean.
//! Invariant: pickled arrays are refused by their type; the data is exactly as long as the header says.

use super::arrays::{Array, Table};
use crate::checkpoint::SourceFile;
use crate::error::{Error, Result};
use crate::tensor::DType;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What every file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// A header is a line of text; with many named fields, which are not read here, it may have more.
const MAX_HEADER: u64 = 1 << 16;
/// Most dimensions.
const MAX_DIMENSIONS: usize = 8;

/// Element types by `NumPy`'s codes.
const TYPES: [(&str, DType); 12] = [
    ("i1", DType::I8),
    ("i2", DType::I16),
    ("i4", DType::I32),
    ("i8", DType::I64),
    ("u1", DType::U8),
    ("u2", DType::U16),
    ("u4", DType::U32),
    ("u8", DType::U64),
    ("f2", DType::F16),
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("b1", DType::Bool),
];

/// Opens an array of token ids or of numbers.
pub(super) fn open(file: &SourceFile) -> Result<Table> {
    let io = |e: std::io::Error| Error::io(&file.name, &e);
    let wrong = |what: String| Error::bad_input("invalid_npy", format!("{}: {what}", file.name));
    let handle = File::open(&file.path).map_err(io)?;
    let length = handle.metadata().map_err(io)?.len();
    let mut start = [0; 12];
    if length < 12 {
        return Err(wrong(format!("{length} bytes are too few for a header")));
    }
    handle.read_exact_at(&mut start, 0).map_err(io)?;
    if !start.starts_with(MAGIC) {
        return Err(wrong("does not begin as an .npy file does".to_owned()));
    }
    let (begin, size) = match start[6] {
        1 => (10, u64::from(u16::from_le_bytes([start[8], start[9]]))),
        2 | 3 => (
            12,
            u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]])),
        ),
        version => return Err(wrong(format!("version {version} of the format is not known"))),
    };
    if size > MAX_HEADER || begin + size > length {
        return Err(wrong(format!("the header claims {size} bytes")));
    }
    let mut header = vec![0; size as usize];
    handle.read_exact_at(&mut header, begin).map_err(io)?;
    let header = parse(&String::from_utf8_lossy(&header)).map_err(wrong)?;
    let array = Array {
        name: String::new(),
        dtype: header.dtype,
        shape: header.shape,
        offset: begin + size,
    };
    let (have, need) = (length - begin - size, array.bytes());
    if need != Some(have) {
        let need = need.map_or_else(|| "too many".to_owned(), |need| need.to_string());
        return Err(wrong(format!(
            "the header asks for {need} bytes of data, there are {have}"
        )));
    }
    Table::new(file, handle, array, None)
}

#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    shape: Vec<usize>,
}

/// `{'descr': '<i4', 'fortran_order': False, 'shape': (3, 4), }`
fn parse(text: &str) -> std::result::Result<Header, String> {
    let after = |key: &str| {
        let at = text
            .split_once(&format!("'{key}':"))
            .map(|(_, rest)| rest.trim_start());
        at.ok_or_else(|| format!("the header has no {key}"))
    };
    let dtype = dtype(after("descr")?)?;
    if !after("fortran_order")?.starts_with("False") {
        return Err("the array is in Fortran order: save numpy.ascontiguousarray(array)".to_owned());
    }
    let shape = after("shape")?
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'));
    let (shape, _) = shape.ok_or("the shape is no tuple")?;
    let numbers = shape
        .split(',')
        .map(str::trim)
        .filter(|number| !number.is_empty());
    let shape: Option<Vec<usize>> = numbers.map(|number| number.parse().ok()).collect();
    let shape = shape.ok_or("the shape holds something else than numbers")?;
    if shape.is_empty() || shape.len() > MAX_DIMENSIONS {
        return Err(format!(
            "{} dimensions; 1 to {MAX_DIMENSIONS} are read",
            shape.len()
        ));
    }
    Ok(Header { dtype, shape })
}

fn dtype(rest: &str) -> std::result::Result<DType, String> {
    let quoted = rest.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let (name, _) = quoted.ok_or("the array has named fields; save one plain array a file")?;
    if name.contains('O') {
        return Err(
            "an array of Python objects, which are pickled and can run code: save plain numbers".to_owned(),
        );
    }
    let code = name.trim_start_matches(['<', '|', '=']);
    let found = TYPES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, dtype)| *dtype);
    found.ok_or_else(|| {
        format!("numbers of type {name:?} are not read; little-endian integers and floats are")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_that_numpy_writes_are_read() {
        for (text, dtype, shape) in [
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }   \n",
                DType::I64,
                vec![3, 4],
            ),
            (
                "{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }",
                DType::U8,
                vec![7],
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 8, 8), }",
                DType::F32,
                vec![2, 3, 8, 8],
            ),
        ] {
            assert_eq!(parse(text), Ok(Header { dtype, shape }), "{text}");
        }
    }

    #[test]
    fn what_is_not_read_is_refused_with_its_reason() {
        for (text, says) in [
            (
                "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
                "pickled",
            ),
            (
                "{'descr': '>i4', 'fortran_order': False, 'shape': (3,), }",
                "little-endian",
            ),
            (
                "{'descr': '<i4', 'fortran_order': True, 'shape': (3, 3), }",
                "ascontiguousarray",
            ),
            (
                "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,), }",
                "named fields",
            ),
            (
                "{'descr': '<i4', 'fortran_order': False, 'shape': (), }",
                "0 dimensions",
            ),
            (
                "{'descr': '<i4', 'fortran_order': False, 'shape': (-3,), }",
                "else than numbers",
            ),
            ("{'descr': '<i4'}", "fortran_order"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[{}'descrfotanhp:<i48|OTFalue(), ]{0,80}") {
            let _ = parse(&text);
        }
    }
}
