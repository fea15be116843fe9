//! Conditional and range requests on immutable files.
//!
//! Owns: `If-Match`, `If-None-Match`, `If-Range`, `Range` against one strong entity tag (RFC 9110 §13–14).
//! Must not know: where the bytes are.
//! Invariant: a satisfiable answer never reaches past the end of the file.

use axum::http::{HeaderMap, header};

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200 with everything.
    Whole,
    /// 206 with `first..=last`.
    Part {
        /// First byte.
        first: u64,
        /// Last byte, included.
        last: u64,
    },
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    OutOfRange,
}

/// Decides by the request's headers for a file of `bytes` with the strong tag `etag` (quotes included).
pub fn decide(headers: &HeaderMap, etag: &str, bytes: u64) -> Answer {
    if let Some(tags) = joined(headers, &header::IF_MATCH)
        && !names(&tags, etag, false)
    {
        return Answer::Failed;
    }
    if let Some(tags) = joined(headers, &header::IF_NONE_MATCH)
        && names(&tags, etag, true)
    {
        return Answer::NotModified;
    }
    match headers.get(header::RANGE).and_then(|v| v.to_str().ok()) {
        Some(range) if still_same(headers, etag) => parse(range, bytes),
        _ => Answer::Whole,
    }
}

/// `If-Range` holds only for the very same strong tag; a date never proves byte equality here.
fn still_same(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get(header::IF_RANGE)
        .is_none_or(|value| value.as_bytes() == etag.as_bytes())
}

/// Several ranges, other units and nonsense are ignored, as RFC 9110 §14.2 allows: the whole file is sent.
fn parse(range: &str, bytes: u64) -> Answer {
    let Some((unit, spec)) = range.trim().split_once('=') else {
        return Answer::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Answer::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Answer::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() && first < bytes => Answer::Part {
            first,
            last: bytes - 1,
        },
        (Some(first), Some(last)) if first <= last && first < bytes => Answer::Part {
            first,
            last: last.min(bytes - 1),
        },
        (None, Some(suffix)) if first.is_empty() && suffix > 0 && bytes > 0 => Answer::Part {
            first: bytes.saturating_sub(suffix),
            last: bytes - 1,
        },
        (Some(_), None) if last.is_empty() => Answer::OutOfRange,
        (Some(first), Some(last)) if first <= last => Answer::OutOfRange,
        (None, Some(_)) if first.is_empty() => Answer::OutOfRange,
        _ => Answer::Whole,
    }
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More digits than fit is a position past any file.
    Some(text.parse().unwrap_or(u64::MAX))
}

fn names(tags: &str, etag: &str, weak_too: bool) -> bool {
    tags.split(',').map(str::trim).any(|tag| {
        let strong = tag.strip_prefix("W/").filter(|_| weak_too);
        tag == "*" || strong.unwrap_or(tag) == etag
    })
}

fn joined(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    if values.is_empty() {
        None
    } else {
        Some(values.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn ask(pairs: &[(header::HeaderName, &str)]) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).expect("header"));
        }
        decide(&headers, "\"abc\"", 10)
    }

    #[test]
    fn ranges() {
        let part = |first, last| Answer::Part { first, last };
        for (range, want) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-5", part(2, 5)),
            ("bytes=2-", part(2, 9)),
            ("Bytes=2-5", part(2, 5)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=5-99999999999999999999999", part(5, 9)),
            ("bytes=10-", Answer::OutOfRange),
            ("bytes=10-12", Answer::OutOfRange),
            ("bytes=-0", Answer::OutOfRange),
            ("bytes=99999999999999999999999-", Answer::OutOfRange),
            ("bytes=5-2", Answer::Whole),
            ("bytes=0-1,3-4", Answer::Whole),
            ("bytes=", Answer::Whole),
            ("bytes=a-b", Answer::Whole),
            ("bytes=+1-2", Answer::Whole),
            ("lines=1-2", Answer::Whole),
        ] {
            assert_eq!(ask(&[(header::RANGE, range)]), want, "{range}");
        }
    }

    #[test]
    fn tags() {
        assert_eq!(
            ask(&[(header::IF_NONE_MATCH, "\"x\", W/\"abc\"")]),
            Answer::NotModified
        );
        assert_eq!(ask(&[(header::IF_NONE_MATCH, "\"x\"")]), Answer::Whole);
        assert_eq!(ask(&[(header::IF_MATCH, "\"x\"")]), Answer::Failed);
        assert_eq!(ask(&[(header::IF_MATCH, "W/\"abc\"")]), Answer::Failed);
        assert_eq!(ask(&[(header::IF_MATCH, "*")]), Answer::Whole);
        let range = (header::RANGE, "bytes=0-1");
        assert_eq!(
            ask(&[range.clone(), (header::IF_RANGE, "\"abc\"")]),
            Answer::Part { first: 0, last: 1 }
        );
        assert_eq!(
            ask(&[range.clone(), (header::IF_RANGE, "\"old\"")]),
            Answer::Whole
        );
        assert_eq!(
            ask(&[range, (header::IF_RANGE, "Wed, 21 Oct 2015 07:28:00 GMT")]),
            Answer::Whole
        );
    }

    proptest! {
        /// Whatever stands around it, a list that names the tag or `*` matches, and another never does.
        #[test]
        fn lists_of_tags(
            others in prop::collection::vec("(W/)?\"[a-b!#,]{0,4}\"|[ -~]{0,6}", 0..4),
            at in any::<prop::sample::Index>(),
            ours in prop::sample::select(vec![None, Some("\"abc\""), Some("W/\"abc\""), Some("*")]),
        ) {
            let mut list = others;
            prop_assume!(!list.iter().any(|tag| tag.contains("abc") || tag.split(',').any(|t| t.trim() == "*")));
            if let Some(ours) = ours {
                list.insert(at.index(list.len() + 1), ours.to_owned());
            }
            let text = list.join(", ");
            prop_assert_eq!(ask(&[(header::IF_NONE_MATCH, &text)]) == Answer::NotModified, ours.is_some(), "{}", text);
            let strong = ours.is_some_and(|ours| !ours.starts_with("W/"));
            // No list at all is no condition.
            prop_assert_eq!(ask(&[(header::IF_MATCH, &text)]) == Answer::Whole, strong, "{}", text);
        }

        #[test]
        fn a_part_lies_inside_the_file(range in "bytes=[0-9]{0,22}-[0-9]{0,22}", bytes in 0u64..50) {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_str(&range).expect("header"));
            if let Answer::Part { first, last } = decide(&headers, "\"e\"", bytes) {
                prop_assert!(first <= last && last < bytes);
            }
        }
    }
}
