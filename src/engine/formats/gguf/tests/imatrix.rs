//! Both forms are read, the GGUF form comes back from what is written, and broken files are refused in words.

use std::io;

use proptest::prelude::*;

use super::*;

fn read_bytes(bytes: &[u8]) -> Result<ImportanceFile> {
    let read_at = |offset: u64, out: &mut [u8]| {
        let start = usize::try_from(offset).unwrap();
        let end = start.checked_add(out.len()).unwrap();
        out.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    ImportanceFile::read(&read_at, bytes.len() as u64)
}

fn refusal(bytes: &[u8]) -> String {
    read_bytes(bytes).unwrap_err().message
}

fn entry(name: &str, in_sum2: &[f32], counts: &[f32]) -> ImportanceEntry {
    ImportanceEntry {
        name: name.into(),
        in_sum2: in_sum2.into(),
        counts: counts.into(),
    }
}

fn file(entries: &[ImportanceEntry]) -> ImportanceFile {
    ImportanceFile {
        entries: entries.into(),
        datasets: vec!["wiki.train.raw".into()],
        chunk_count: 7,
        chunk_size: 512,
    }
}

/// Two entries as llama.cpp's tool wrote them before it wrote GGUF.
fn legacy() -> Vec<u8> {
    let mut out = 2_i32.to_le_bytes().to_vec();
    for (name, calls, values) in [("a.weight", 4_i32, [8.0_f32, 2.0]), ("b.weight", 0, [3.0, 5.0])] {
        out.extend((name.len() as i32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(calls.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    out.extend(9_i32.to_le_bytes());
    out.extend(8_i32.to_le_bytes());
    out.extend(b"wiki.txt");
    out
}

#[test]
fn means_are_sums_by_counts_and_one_where_nothing_was_seen() {
    let experts = entry(
        "blk.0.ffn_up_exps.weight",
        &[4.0, 8.0, 0.0, 0.0, 3.0, 6.0],
        &[2.0, 0.0, 3.0],
    );
    assert_eq!(experts.squares().means(), [2.0, 4.0, 1.0, 1.0, 1.0, 2.0]);
}

#[test]
fn the_older_form_is_read_with_its_trailer_and_without() {
    let bytes = legacy();
    let read = read_bytes(&bytes).unwrap();
    assert_eq!((read.chunk_count, read.chunk_size), (9, 0));
    assert_eq!(read.datasets, ["wiki.txt"]);
    assert_eq!(
        read.entry("a.weight").unwrap().clone().squares().means(),
        [2.0, 0.5]
    );
    assert_eq!(
        read.entry("b.weight").unwrap().clone().squares().means(),
        [3.0, 5.0]
    );
    let old = read_bytes(&bytes[..bytes.len() - 16]).unwrap();
    assert_eq!((old.chunk_count, old.datasets.len()), (0, 0));
    assert_eq!(old.entries, read.entries);
}

#[test]
fn what_is_written_is_read_back_in_order_of_names() {
    let (a, b) = (
        entry("a", &[1.0, 2.0], &[2.0]),
        entry("b", &[1.0; 6], &[1.0, 0.0]),
    );
    let bytes = file(&[b.clone(), a.clone()]).write().unwrap();
    assert_eq!(read_bytes(&bytes).unwrap(), file(&[a, b]));
    assert_eq!(bytes.len() % 32, 0);
}

#[test]
fn refuses_what_would_weigh_columns_wrongly() {
    let bad = |entries: &[ImportanceEntry]| file(entries).write().unwrap_err().message;
    assert_eq!(
        bad(&[entry("a", &[1.0, 2.0, 3.0], &[1.0, 1.0])]),
        "importance matrix: a has 3 sums for 2 counts"
    );
    assert_eq!(
        bad(&[entry("a", &[-1.0], &[1.0])]),
        "importance matrix: a holds -1: sums of squares and counts are finite and not negative"
    );
    assert!(bad(&[entry("a", &[f32::NAN], &[1.0])]).contains("a holds NaN"));
    assert!(bad(&[entry("a\n", &[1.0], &[1.0])]).contains("control characters"));
}

#[test]
fn refuses_a_gguf_that_is_no_importance_matrix() {
    let f32s = |name: &str| (name.to_owned(), vec![1, 1], GgmlType::F32);
    let with = |tensors: &[(String, Vec<u64>, GgmlType)], keys: &[(&str, Value)]| {
        let mut metadata = Metadata::new();
        for (key, value) in keys {
            metadata.set(*key, value.clone());
        }
        let layout = header_bytes(&metadata, tensors, 32).unwrap();
        let mut bytes = layout.header;
        bytes.resize(layout.file_len as usize, 0);
        refusal(&bytes)
    };
    let counts = [(CHUNK_COUNT, Value::U32(1)), (CHUNK_SIZE, Value::U32(512))];
    let keys = [&[(DATASETS, Value::texts([""; 0]))], &counts[..]].concat();
    let model = [("general.type", Value::text("model"))];
    assert_eq!(
        with(&[], &model),
        "importance matrix: general.type is model, not imatrix"
    );
    assert_eq!(
        with(&[], &counts),
        "importance matrix: the file has no imatrix.datasets"
    );
    assert_eq!(with(&[], &keys), "importance matrix: the file has no entries");
    assert_eq!(
        with(&[f32s("a.in_sum2")], &keys),
        "importance matrix: a has sums and no counts"
    );
    assert_eq!(
        with(&[f32s("a.counts")], &keys),
        "importance matrix: a has counts and no sums"
    );
    let half = ("a.in_sum2".to_owned(), vec![1, 1], GgmlType::F16);
    assert_eq!(
        with(&[half, f32s("a.counts")], &keys),
        "importance matrix: a.in_sum2 is not F32"
    );
}

#[test]
fn lengths_are_compared_with_the_file_before_they_are_believed() {
    let mut bytes = 1_i32.to_le_bytes().to_vec();
    bytes.extend([1, 0, 0, 0, b'a', 1, 0, 0, 0]);
    bytes.extend(i32::MAX.to_le_bytes());
    assert_eq!(
        refusal(&bytes),
        "importance matrix: a needs 8589934588 bytes, 0 are left"
    );
    assert_eq!(refusal(&[0; 4]), "importance matrix: the number of entries is 0");
    assert!(refusal(&[]).contains("needs 4 bytes, 0 are left"));
    let endless = |_: u64, _: &mut [u8]| Ok(());
    let error = ImportanceFile::read(&endless, u64::MAX).unwrap_err();
    assert!(error.message.contains("the most is 4294967296"));
}

/// A small matrix, written by llama.cpp's tool.
#[test]
fn a_file_of_llama_cpps_own_tool_is_read_and_written_again_byte_for_byte() {
    let bytes = include_bytes!("imatrix.gguf");
    let read = read_bytes(bytes).unwrap();
    assert_eq!((read.chunk_count, read.chunk_size), (2, 32));
    assert_eq!(read.entries.len(), 7);
    assert!(read.entries.iter().all(|entry| entry.counts == [64.0]));
    assert!(read.write().unwrap() == bytes);
}

fn entries() -> impl Strategy<Value = Vec<ImportanceEntry>> {
    let matrices = prop::collection::vec(0_f32..1e6, 1..4);
    let one = (matrices, 1_usize..5, 0_f32..1e9);
    prop::collection::vec(one, 1..5).prop_map(|list| {
        let entries = list.into_iter().enumerate().map(|(i, (counts, cols, sum))| {
            let in_sum2 = (0..counts.len() * cols)
                .map(|k| sum * k as f32)
                .collect::<Vec<_>>();
            entry(&format!("blk.{i}.ffn_up.weight"), &in_sum2, &counts)
        });
        entries.collect()
    })
}

proptest! {
    #[test]
    fn anything_valid_comes_back_as_it_was(entries in entries(), datasets in prop::collection::vec("\\PC{0,12}", 0..3)) {
        let file = ImportanceFile { entries, datasets, chunk_count: 3, chunk_size: 512 };
        prop_assert_eq!(read_bytes(&file.write().unwrap()).unwrap(), file);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_bytes(&bytes);
    }

    #[test]
    fn a_file_with_a_changed_byte_or_a_lost_end_is_read_or_refused(
        entries in entries(),
        old in any::<bool>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = if old { legacy() } else { file(&entries).write().unwrap() };
        let place = at.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(read) = read_bytes(&bytes) {
            prop_assert!(read.entries.into_iter().all(|entry| entry.squares().means().iter().all(|v| *v >= 0.0)));
        }
    }
}
