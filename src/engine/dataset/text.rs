//! Plain text: one document a file.
//!
//! Owns: cutting a large file into pieces. Must not know: tokens.
//! Invariant: the pieces put together are the file, but for a byte order mark and for blank pieces.

use super::MAX_RECORD_BYTES;
use super::record::{Content, Record};
use crate::error::{Error, Result};
use std::io::Read;

/// The documents of a text file: one, or pieces of a long one.
pub(super) fn pieces<'a>(
    source: impl Read + Send + 'a,
    name: &'a str,
) -> impl Iterator<Item = Result<Record>> + Send + 'a {
    pieces_of(source, name, MAX_RECORD_BYTES)
}

fn pieces_of<'a>(
    source: impl Read + Send + 'a,
    name: &'a str,
    most: usize,
) -> impl Iterator<Item = Result<Record>> + Send + 'a {
    let mut pieces = Pieces {
        source,
        name,
        most,
        rest: Vec::new(),
        line: 1,
        is_first: true,
        is_over: false,
    };
    std::iter::from_fn(move || pieces.next_text().transpose()).map(|text| {
        text.map(|text| Record {
            content: Content::Text(text),
            label: None,
            text_pair: None,
        })
    })
}

struct Pieces<'a, R> {
    source: R,
    name: &'a str,
    most: usize,
    /// What was read behind the last cut.
    rest: Vec<u8>,
    line: usize,
    is_first: bool,
    is_over: bool,
}

impl<R: Read> Pieces<'_, R> {
    fn next_text(&mut self) -> Result<Option<String>> {
        while !self.is_over {
            let piece = self.piece()?;
            let text = String::from_utf8(piece).map_err(|e| self.not_text(&e))?;
            self.line += text.matches('\n').count();
            let text = match text.strip_prefix('\u{feff}').filter(|_| self.is_first) {
                Some(marked) => marked.to_owned(),
                None => text,
            };
            self.is_first = false;
            if !text.trim().is_empty() {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn piece(&mut self) -> Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.rest);
        let room = self.most.saturating_sub(bytes.len()) as u64;
        let io = |e: std::io::Error| Error::io(self.name, &e);
        (&mut self.source)
            .take(room)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        if bytes.len() < self.most {
            self.is_over = true;
            return Ok(bytes);
        }
        self.rest = bytes.split_off(cut(&bytes));
        Ok(bytes)
    }

    fn not_text(&mut self, error: &std::string::FromUtf8Error) -> Error {
        self.is_over = true;
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = self.line + String::from_utf8_lossy(good).matches('\n').count();
        Error::bad_input(
            "invalid_utf8",
            format!("{}, line {line}: not UTF-8; convert the file to UTF-8", self.name),
        )
    }
}

/// Where to cut: after the last line break, else the last space, else the last whole character.
fn cut(bytes: &[u8]) -> usize {
    let after = |wanted: u8| bytes.iter().rposition(|byte| *byte == wanted).map(|at| at + 1);
    let character = || {
        let begins = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80);
        begins.filter(|at| *at > 0).unwrap_or(bytes.len())
    };
    after(b'\n').or_else(|| after(b' ')).unwrap_or_else(character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(bytes: &[u8], most: usize) -> Result<Vec<String>> {
        let text = |record: Result<Record>| match record?.content {
            Content::Text(text) => Ok(text),
            other => panic!("{other:?}"),
        };
        pieces_of(bytes, "a.txt", most).map(text).collect()
    }

    #[test]
    fn a_file_is_one_document_and_a_long_one_is_cut_at_line_breaks() {
        assert_eq!(
            texts("\u{feff}one\ntwo\n".as_bytes(), 100).unwrap(),
            ["one\ntwo\n"]
        );
        assert_eq!(texts(b"one\ntwo\nthree", 10).unwrap(), ["one\ntwo\n", "three"]);
        assert_eq!(texts(b"one two three", 8).unwrap(), ["one two ", "three"]);
        assert_eq!(texts("ééééé".as_bytes(), 5).unwrap(), ["éé", "éé", "é"]);
        assert_eq!(texts(b" \n\t\n", 100).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_text_is_named_by_line() {
        let error = texts(b"one\ntwo\n\xff\n", 100).unwrap_err();
        assert_eq!(
            (error.code, error.message.contains("a.txt, line 3")),
            ("invalid_utf8", true),
            "{error}"
        );
        let later = texts(b"one\ntwo\n\xff\n", 9).unwrap_err();
        assert!(later.message.contains("line 3"), "{later}");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_between_pieces(text in "[aé日 \n]{0,60}", most in 4usize..20) {
            let pieces = texts(text.as_bytes(), most).unwrap();
            let squeezed = |text: &str| text.replace([' ', '\n'], "");
            prop_assert_eq!(squeezed(&pieces.concat()), squeezed(&text));
            prop_assert!(pieces.iter().all(|piece| piece.len() <= most));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), most in 4usize..20) {
            let _ = texts(&bytes, most);
        }
    }
}
