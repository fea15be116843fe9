//! Datasets as users have them, and files that are none.

use super::*;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

fn folder(files: &[(&str, &[u8])]) -> (TempDir, Vec<SourceFile>) {
    let folder = tempfile::tempdir().unwrap();
    let write = |(name, bytes): &(&str, &[u8])| {
        let path = folder.path().join(name.replace('/', "_"));
        std::fs::write(&path, bytes).unwrap();
        SourceFile::new((*name).to_owned(), path)
    };
    let files = files.iter().map(write).collect();
    (folder, files)
}

fn opened(files: &[(&str, &[u8])]) -> Result<(TempDir, Dataset)> {
    let (folder, files) = folder(files);
    Ok((folder, Dataset::open(&files)?))
}

fn refusal(files: &[(&str, &[u8])]) -> Error {
    let refused = opened(files).and_then(|(_folder, dataset)| dataset.summary());
    refused.unwrap_err()
}

fn contents(dataset: &Dataset) -> Vec<Content> {
    dataset.records().map(|record| record.unwrap().content).collect()
}

/// An `.npy` file as `NumPy` writes it.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn safetensors(arrays: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, dtype, shape, bytes) in arrays {
        let ends = [data.len(), data.len() + bytes.len()];
        header.insert(
            (*name).to_owned(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": ends}),
        );
        data.extend(bytes);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

fn i32s(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

#[test]
fn each_text_file_is_a_document() {
    let (_folder, dataset) = opened(&[("a.txt", b"one\ntwo"), ("b.md", b"three"), ("c.txt", b"\n")]).unwrap();
    let text = |text: &str| Content::Text(text.to_owned());
    assert_eq!(contents(&dataset), [text("one\ntwo"), text("three")]);
    let summary = dataset.summary().unwrap();
    assert_eq!(
        (summary.format, summary.content),
        (DatasetFormat::Txt, ContentKind::Text)
    );
    assert_eq!((summary.files, summary.records, summary.bytes), (3, 2, 13));
}

#[test]
fn rows_are_counted_with_their_labels() {
    let rows = b"{\"text\": \"a\", \"label\": 0}\n{\"text\": \"b\", \"text_pair\": \"c\"}\n";
    let (_folder, dataset) = opened(&[("train.jsonl", rows), ("more.ndjson", rows)]).unwrap();
    let shown = serde_json::to_value(dataset.summary().unwrap()).unwrap();
    let bytes = 2 * rows.len();
    assert_eq!(
        shown,
        json!({"format": "jsonl", "content": "text", "files": 2, "bytes": bytes, "records": 4, "labelled": 2, "paired": 2})
    );
}

#[test]
fn rows_of_an_integer_array_are_token_ids() {
    let file = npy("<i4", "(2, 3)", &i32s(&[1, 2, 3, 4, 5, 6]));
    let (_folder, dataset) = opened(&[("ids.npy", &file)]).unwrap();
    assert_eq!(
        contents(&dataset),
        [Content::Ids(vec![1, 2, 3]), Content::Ids(vec![4, 5, 6])]
    );
}

#[test]
fn one_long_row_of_ids_comes_in_pieces() {
    let many = 131_072 + 5;
    let file = npy("<u2", &format!("({many},)"), &vec![7; 2 * many]);
    let (_folder, dataset) = opened(&[("ids.npy", &file)]).unwrap();
    let lengths: Vec<usize> = contents(&dataset)
        .iter()
        .map(|content| match content {
            Content::Ids(ids) => ids.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [131_072, 5]);
}

#[test]
fn rows_of_a_float_array_keep_their_shape() {
    let data: Vec<u8> = (0..8).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let (_folder, dataset) = opened(&[("images.npy", &npy("<f4", "(2, 1, 2, 2)", &data))]).unwrap();
    let second = Content::Values {
        shape: vec![1, 2, 2],
        values: vec![4.0, 5.0, 6.0, 7.0],
    };
    assert_eq!(contents(&dataset)[1], second);
}

#[test]
fn safetensors_hold_ids_and_labels() {
    let file = safetensors(&[
        ("input_ids", "I32", &[2, 2], i32s(&[1, 2, 3, 4])),
        ("labels", "I32", &[2], i32s(&[1, -100])),
    ]);
    let (_folder, dataset) = opened(&[("data.safetensors", &file)]).unwrap();
    let labels: Vec<_> = dataset.records().map(|record| record.unwrap().label).collect();
    assert_eq!(labels, [Some(Label::Class(1)), Some(Label::Class(-100))]);
    assert_eq!(dataset.summary().unwrap().labelled, 2);
}

#[test]
fn a_file_without_an_ending_is_known_by_its_content() {
    let array = npy("<i4", "(1, 1)", &i32s(&[1]));
    let tensors = safetensors(&[("input_ids", "I32", &[1], i32s(&[1]))]);
    for (bytes, format) in [
        (&b"plain text"[..], DatasetFormat::Txt),
        (b" {\"text\": \"x\"}", DatasetFormat::Jsonl),
        (&array, DatasetFormat::Npy),
        (&tensors, DatasetFormat::Safetensors),
    ] {
        assert_eq!(opened(&[("data", bytes)]).unwrap().1.format, format);
    }
}

#[test]
fn what_is_no_dataset_is_refused_with_the_way_out() {
    let object = npy("|O", "(1,)", b"pickle");
    let short = npy("<i4", "(4,)", &i32s(&[1]));
    let negative = npy("<i4", "(1, 2)", &i32s(&[5, -1]));
    let huge = npy("<i4", "(1, 99999999)", b"");
    let none = npy("<i4", "(0, 18446744073709551615, 3)", b"");
    let unknown = safetensors(&[("weight", "F32", &[1], vec![0; 4])]);
    let labels = safetensors(&[
        ("input_ids", "I32", &[2, 1], i32s(&[1, 2])),
        ("labels", "I32", &[1], i32s(&[1])),
    ]);
    let rows = b"{\"text\": \"a\"}\n{\"input_ids\": [1]}\n";
    for (name, bytes, code, says) in [
        ("a.txt", &b" \n"[..], "empty_dataset", "no record"),
        ("a.jsonl", b"\n\n", "empty_dataset", "no record"),
        (
            "a.jsonl",
            b"{\"text\": \"a\"}\n{\"text\"\n",
            "invalid_json",
            "a.jsonl, line 2",
        ),
        ("a.jsonl", rows, "mixed_records", "make two datasets"),
        ("a.txt", b"caf\xe9", "invalid_utf8", "a.txt, line 1"),
        (
            "a.parquet",
            b"PAR1",
            "unknown_dataset_format",
            "one object a line",
        ),
        ("a.csv", b"text\n", "unknown_dataset_format", "one object a line"),
        ("data", b"\x00\x01", "unknown_dataset_format", ".jsonl"),
        ("a.npy", b"\x93NUMPY", "invalid_npy", "too few"),
        ("a.npy", &object, "invalid_npy", "pickled"),
        (
            "a.npy",
            &short,
            "invalid_npy",
            "asks for 16 bytes of data, there are 4",
        ),
        ("a.npy", &huge, "invalid_npy", "asks for"),
        ("a.npy", &none, "invalid_array", "1 or 2 dimensions"),
        (
            "a.npy",
            &negative,
            "invalid_array",
            "row 0, place 1: -1 is no token id",
        ),
        ("a.safetensors", &unknown, "invalid_array", "\"weight\""),
        ("a.safetensors", &labels, "invalid_array", "for 2 rows"),
    ] {
        let refused = refusal(&[(name, bytes)]);
        assert_eq!(refused.code, code, "{name}: {refused}");
        assert!(refused.message.contains(says), "{name}: {refused}");
    }
}

#[test]
fn all_files_are_of_one_kind() {
    let refused = refusal(&[("a.txt", b"x"), ("b.jsonl", b"{\"text\": \"x\"}")]);
    assert_eq!(refused.code, "mixed_dataset");
    assert!(
        refused.message.contains("a.txt") && refused.message.contains("b.jsonl"),
        "{refused}"
    );
    assert_eq!(Dataset::open(&[]).unwrap_err().code, "no_files");
}

#[test]
fn after_an_error_there_are_no_more_records() {
    let (_folder, dataset) = opened(&[
        ("a.jsonl", b"{\"text\": \"a\"}\n{\n"),
        ("b.jsonl", b"{\"text\": \"b\"}"),
    ])
    .unwrap();
    let read: Vec<bool> = dataset.records().map(|record| record.is_ok()).collect();
    assert_eq!(read, [true, false]);
}

#[test]
fn the_builtin_text_is_always_there() {
    let mut datasets = Datasets::new();
    let (_folder, other) = opened(&[("a.txt", b"other")]).unwrap();
    datasets.insert(BUILTIN, other);
    let (_folder, mine) = opened(&[("a.txt", b"mine")]).unwrap();
    datasets.insert("ds_1", mine);
    assert_eq!(datasets.names(), [BUILTIN, "ds_1"]);
    let builtin = datasets.get(BUILTIN).unwrap();
    assert!(builtin.bytes > 100 && builtin.summary().unwrap().records == 1);
    assert!(datasets.get("ds_2").is_none());
    // Its bytes are part of what makes an artifact the same everywhere, also where line ends are rewritten.
    let checked_out =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("dataset/builtin.txt")).unwrap();
    let held_out = datasets.held_out(BUILTIN).unwrap();
    let [Content::Text(first), Content::Text(last)] = &[contents(builtin), contents(held_out)].concat()[..]
    else {
        panic!("two texts");
    };
    assert!(
        *checked_out == *format!("{first}{last}").as_bytes(),
        "nothing is missing, nothing is in both"
    );
    assert!(first.len() > last.len() && last.len() > 30_000);
    assert!(!checked_out.contains(&b'\r'));
}

/// llama.cpp's own file, and the beginning of one as its tool wrote them before: recognised whatever they are called.
#[test]
fn importance_matrices_are_datasets_without_records() {
    let gguf = include_bytes!("../formats/gguf/tests/imatrix.gguf");
    let mut older = 1_i32.to_le_bytes().to_vec();
    older.extend(8_i32.to_le_bytes());
    older.extend(b"a.weight");
    older.extend([3_i32, 2].into_iter().flat_map(i32::to_le_bytes));
    older.extend([6_f32, 12.0].into_iter().flat_map(f32::to_le_bytes));
    for (name, bytes, entries) in [
        ("m.gguf", &gguf[..], 7),
        ("imatrix.dat", &older, 1),
        ("m", gguf, 7),
    ] {
        let (_folder, dataset) = opened(&[(name, bytes)]).unwrap();
        let summary = dataset.summary().unwrap();
        assert_eq!(
            (summary.format, summary.records),
            (DatasetFormat::Imatrix, entries),
            "{name}"
        );
        assert_eq!(summary.content, ContentKind::Importance);
        assert_eq!(dataset.importance().unwrap().entries.len(), entries as usize);
        assert_eq!(dataset.records().count(), 0);
    }
    assert_eq!(
        refusal(&[("a.gguf", gguf), ("b.gguf", gguf)]).code,
        "mixed_dataset"
    );
    let cut = refusal(&[("a.gguf", &gguf[..gguf.len() / 2])]);
    assert!(cut.message.starts_with("a.gguf: "), "{cut}");
    let (_folder, text) = opened(&[("a.txt", b"text")]).unwrap();
    assert_eq!(text.importance().unwrap_err().code, "not_an_imatrix");
}
