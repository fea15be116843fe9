//! Tensors that lie in several files.

use super::*;

fn file(name: &str, tensors: &[(usize, u64)]) -> OutFile {
    let placed = |(tensor, bytes): &(usize, u64)| Placed {
        tensor: Some(*tensor),
        literal: Vec::new(),
        entries: vec![Entry {
            name: format!("{name}.{tensor}"),
            dtype: "U8".into(),
            shape: vec![*bytes as usize],
            bytes: *bytes,
        }],
    };
    OutFile {
        name: name.into(),
        bytes: 1 + tensors.iter().map(|(_, bytes)| bytes).sum::<u64>(),
        content: Content::Tensors {
            header: vec![b'#'],
            placed: tensors.iter().map(placed).collect(),
            alignment: 1,
        },
    }
}

fn sink(dir: &Path) -> Sink {
    let mut layout = Layout::default();
    layout.push_bytes("config.json", b"{}".to_vec());
    layout.files.extend([
        file("first", &[(0, 1), (1, 2)]),
        file("second", &[(2, 1)]),
        file("beside", &[(1, 1), (2, 2)]),
    ]);
    Sink::new(dir, layout).unwrap()
}

#[test]
fn a_tensor_goes_into_each_file_that_has_some_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path());
    sink.put(0, &[vec![b'a']]).unwrap();
    sink.put(1, &[b"bb".to_vec(), b"B".to_vec()]).unwrap();
    sink.put(2, &[b"c".to_vec(), b"CC".to_vec()]).unwrap();
    let written = sink.finish().unwrap();
    let read = |file: &Written| (file.name.clone(), std::fs::read_to_string(&file.path).unwrap());
    let found: Vec<(String, String)> = written.iter().map(read).collect();
    let meant = [
        ("config.json", "{}"),
        ("first", "#abb"),
        ("second", "#c"),
        ("beside", "#BCC"),
    ];
    assert_eq!(
        found,
        meant.map(|(name, text)| (name.to_owned(), text.to_owned()))
    );
}

#[test]
fn parts_that_no_file_waits_for_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |index: usize, parts: &[Vec<u8>]| sink(dir.path()).put(index, parts).unwrap_err().message;
    assert!(refused(0, &[vec![1], vec![2]]).contains("tensor 0 came with lengths [1]"));
    assert!(refused(0, &[vec![1, 2]]).contains("planned [(\"first.0\", 1)], tensor 0 came with lengths [2]"));
    assert!(refused(0, &[]).contains("tensor 0 came with lengths []"));
    assert!(refused(2, &[vec![1]]).contains("tensor 2 came with lengths [1]"));
    let mut early = sink(dir.path());
    early.put(0, &[vec![1]]).unwrap();
    assert!(
        early
            .put(1, &[vec![1, 2]])
            .unwrap_err()
            .message
            .contains("beside.1")
    );
    assert!(
        sink(dir.path())
            .finish()
            .unwrap_err()
            .message
            .contains("first: 2 tensors never came")
    );
}
