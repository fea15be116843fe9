//! JSON lines: one object a line.
//!
//! Owns: what a row may say. Must not know: chat templates, the model's labels.
//! Invariant: a line longer than [`MAX_RECORD_BYTES`] is refused before it is held.
//!
//! Rows come from everywhere and carry more than is read here (`id`, `url`, `attention_mask`): those fields are left
//! alone. A row that has none of the three that are read is refused.

use super::MAX_RECORD_BYTES;
use super::record::{Content, Label, Message, Record};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};

/// A row as it is written.
#[derive(Deserialize)]
struct Row {
    text: Option<String>,
    text_pair: Option<String>,
    messages: Option<Vec<Message>>,
    input_ids: Option<Vec<u32>>,
    label: Option<Label>,
}

/// The rows of a file. Empty lines and rows without content are no records.
pub(super) fn rows<'a>(
    source: impl Read + Send + 'a,
    name: &'a str,
) -> impl Iterator<Item = Result<Record>> + Send + 'a {
    rows_of(source, name, MAX_RECORD_BYTES)
}

fn rows_of<'a>(
    source: impl Read + Send + 'a,
    name: &'a str,
    most: usize,
) -> impl Iterator<Item = Result<Record>> + Send + 'a {
    let mut source = BufReader::with_capacity(1 << 16, source);
    let mut number = 0;
    let mut next = move || -> Result<Option<Record>> {
        loop {
            let mut line = Vec::new();
            // One more than allowed, and the line break.
            let read = (&mut source).take(most as u64 + 2).read_until(b'\n', &mut line);
            if read.map_err(|e| Error::io(name, &e))? == 0 {
                return Ok(None);
            }
            number += 1;
            let wrong = |code, what: String| Error::bad_input(code, format!("{name}, line {number}: {what}"));
            if line.len() > most + usize::from(line.ends_with(b"\n")) {
                let what = format!("longer than {most} bytes, the most that is read: split the record");
                return Err(wrong("record_too_long", what));
            }
            let line = line
                .strip_prefix(b"\xef\xbb\xbf")
                .filter(|_| number == 1)
                .unwrap_or(&line);
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let row = serde_json::from_slice(line).map_err(|e| wrong(code_of(&e), sentence(&e)))?;
            if let Some(record) = record(row).map_err(|what| wrong("invalid_record", what.to_owned()))? {
                return Ok(Some(record));
            }
        }
    };
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let record = next();
        is_over = !matches!(record, Ok(Some(_)));
        record.transpose()
    })
}

/// `None` for a row whose content is empty.
fn record(row: Row) -> std::result::Result<Option<Record>, &'static str> {
    let Row {
        text,
        text_pair,
        messages,
        input_ids,
        label,
    } = row;
    if text_pair.is_some() && text.is_none() {
        return Err("text_pair stands beside text only");
    }
    let (is_empty, content) = match (text, messages, input_ids) {
        (Some(text), None, None) => (text.trim().is_empty(), Content::Text(text)),
        (None, Some(messages), None) => (messages.is_empty(), Content::Messages(messages)),
        (None, None, Some(ids)) => (ids.is_empty(), Content::Ids(ids)),
        (None, None, None) => return Err("a row has text, messages or input_ids"),
        _ => return Err("a row has one of text, messages and input_ids, not several"),
    };
    Ok((!is_empty).then_some(Record {
        content,
        label,
        text_pair,
    }))
}

fn code_of(error: &serde_json::Error) -> &'static str {
    if error.is_data() {
        "invalid_record"
    } else {
        "invalid_json"
    }
}

/// The parser counts lines of the one line that it was given.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(text, _)| text);
    format!("column {}: {text}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Record>> {
        rows_of(text.as_bytes(), "a.jsonl", 200).collect()
    }

    #[test]
    fn a_row_holds_text_a_conversation_or_ids() {
        let rows = read(
            r#"{"text": "good film", "label": "positive", "url": "ignored"}

{"text": "a", "text_pair": "b", "label": 2}
{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
{"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1]}
{"text": "  "}"#,
        )
        .unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0].label, Some(Label::Name("positive".into())));
        assert_eq!(
            (&rows[1].text_pair, &rows[1].label),
            (&Some("b".into()), &Some(Label::Class(2)))
        );
        assert!(matches!(&rows[2].content, Content::Messages(said) if said[1].role == "assistant"));
        assert_eq!(rows[3].content, Content::Ids(vec![1, 2, 3]));
    }

    #[test]
    fn a_wrong_row_is_named_by_file_and_line() {
        let long = format!(r#"{{"text": "{}"}}"#, "x".repeat(200));
        for (row, code, says) in [
            ("{\"text\": ", "invalid_json", "a.jsonl, line 2: column"),
            ("[1]", "invalid_record", "line 2"),
            (r#"{"text": 4}"#, "invalid_record", "expected a string"),
            (
                r#"{"txt": "x"}"#,
                "invalid_record",
                "has text, messages or input_ids",
            ),
            (
                r#"{"text": "x", "input_ids": [1]}"#,
                "invalid_record",
                "not several",
            ),
            (r#"{"input_ids": [-1]}"#, "invalid_record", "`-1`"),
            (
                r#"{"input_ids": [1], "text_pair": "x"}"#,
                "invalid_record",
                "beside text only",
            ),
            (
                r#"{"messages": [{"role": "user"}]}"#,
                "invalid_record",
                "missing field `content`",
            ),
            (
                r#"{"text": "x", "text": "y"}"#,
                "invalid_record",
                "duplicate field `text`",
            ),
            (&long, "record_too_long", "200 bytes"),
        ] {
            let error = read(&format!("{{\"text\": \"first\"}}\n{row}\n")).unwrap_err();
            assert_eq!(error.code, code, "{row}: {error}");
            assert!(error.message.contains(says), "{row}: {error}");
        }
    }

    #[test]
    fn a_line_of_exactly_the_most_bytes_is_read() {
        let line = |bytes: usize| format!(r#"{{"text": "{}"}}"#, "x".repeat(bytes - 12));
        for end in ["", "\n"] {
            assert_eq!(read(&(line(200) + end)).unwrap().len(), 1);
            assert_eq!(read(&(line(201) + end)).unwrap_err().code, "record_too_long");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9{}\\[\\]\":, \n]{0,80}") {
            let _ = read(&text);
        }
    }
}
