//! Reading `tokenizer.model`, from bytes written by hand.

use proptest::prelude::*;

use super::*;

/// Field `number` of wire type 2.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128, "one byte of length");
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn int_field(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
    bytes_field(
        1,
        &[bytes_field(1, text.as_bytes()), score, int_field(3, kind)].concat(),
    )
}

/// Three pieces, BPE, no leading space.
fn model() -> Vec<u8> {
    let trainer = [int_field(3, 2), int_field(4, 100)].concat();
    let normalizer = [bytes_field(1, b"identity"), int_field(3, 0)].concat();
    [
        piece("<unk>", 0.0, 2),
        piece("<0x0A>", 0.0, 6),
        piece("\u{2581}a", -1.5, 1),
        bytes_field(2, &trainer),
        bytes_field(3, &normalizer),
    ]
    .concat()
}

#[test]
fn pieces_scores_types_and_settings_are_read() {
    let parsed = parse(&model()).unwrap();
    let expected = [("<unk>", 0.0, 2), ("<0x0A>", 0.0, 6), ("\u{2581}a", -1.5, 1)];
    let expected = expected.map(|(text, score, kind)| Piece {
        text: text.into(),
        score,
        kind,
    });
    assert_eq!(parsed.pieces, expected);
    assert_eq!((parsed.model_type, parsed.add_dummy_prefix), (2, false));
}

#[test]
fn what_is_left_out_has_the_default_of_the_format() {
    let parsed = parse(&bytes_field(1, &bytes_field(1, b"x"))).unwrap();
    assert_eq!(
        parsed.pieces,
        [Piece {
            text: "x".into(),
            score: 0.0,
            kind: 1
        }]
    );
    assert_eq!((parsed.model_type, parsed.add_dummy_prefix), (1, true));
}

#[test]
fn broken_files_are_refused() {
    let refusal = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
    assert_eq!(
        refusal(b""),
        "tokenizer.model must be at least one piece, got none"
    );
    assert_eq!(
        refusal(&model()[..10]),
        "tokenizer.model must be a sentencepiece protobuf, got a broken field 10 bytes before the end"
    );
    assert_eq!(
        refusal(&piece("x", 0.0, 9)),
        "tokenizer.model must be a piece type from 1 to 6, got 9 for piece 0"
    );
    let not_utf8 = bytes_field(1, &bytes_field(1, b"\xff"));
    assert!(refusal(&not_utf8).starts_with("tokenizer.model must be utf-8 text, got piece 0: "));
}

proptest! {
    #[test]
    fn never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
        let _ = parse(&noise);
        let mut bytes = model();
        let at = at.index(bytes.len());
        bytes.splice(at..at, noise);
        let _ = parse(&bytes);
    }
}
