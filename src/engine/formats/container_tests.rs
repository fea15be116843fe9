//! What was laid out against what reads back.

use super::*;

fn entry(name: &str, bytes: u64) -> Entry {
    Entry {
        name: name.into(),
        dtype: "U8".into(),
        shape: vec![bytes as usize],
        bytes,
    }
}

#[test]
fn what_reads_back_must_be_what_was_laid_out() {
    let placed = |entries| Placed {
        tensor: Some(0),
        literal: Vec::new(),
        entries,
    };
    let file = |placed| OutFile {
        name: "f".into(),
        bytes: 0,
        content: Content::Tensors {
            header: Vec::new(),
            placed,
            alignment: 1,
        },
    };
    let mut layout = Layout::default();
    layout.push_bytes("config.json", Vec::new());
    layout
        .files
        .push(file(vec![placed(vec![entry("a", 1), entry("b", 2)])]));
    layout.files.push(file(vec![placed(vec![entry("c", 3)])]));
    let meant = [entry("a", 1), entry("b", 2), entry("c", 3)];
    layout.check(&meant).unwrap();
    for (found, says) in [
        (&meant[..2], "c (U8 [3], 3 bytes) does not read back"),
        (&[], "a (U8 [1], 1 bytes) does not read back"),
        (
            &[entry("a", 1), entry("x", 2), entry("c", 3)],
            "entry 1 reads back as x (U8 [2], 2 bytes), written was b",
        ),
        (
            &[entry("a", 1), entry("b", 9), entry("c", 3)],
            "entry 1 reads back as b (U8 [9], 9 bytes)",
        ),
        (
            &[meant.as_slice(), &[entry("d", 4)]].concat(),
            "d (U8 [4], 4 bytes) reads back, but was not written",
        ),
    ] {
        let error = layout.check(found).unwrap_err();
        assert!(error.message.contains(says), "{error}");
    }
}
