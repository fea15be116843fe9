//! Request headers with a grammar of their own.
//!
//! Owns: `Idempotency-Key`, `Repr-Digest`, `Upload-Offset`, `Upload-Checksum`, `Upload-Metadata`, `Accept`,
//! `Content-Length`.
//! Must not know: what handlers do with them.
//! Invariant: a header that is there but wrong is an error, never ignored.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::problem::{self, Problem};
use crate::domain::ports::{Checksum, Hash};

const MAX_KEY_BYTES: usize = 255;
const MAX_METADATA_BYTES: usize = 4096;

fn wrong(name: &str, detail: impl std::fmt::Display) -> Problem {
    Problem::new(problem::HEADER_INVALID, format!("{name}: {detail}"))
}

/// The one value of a header, if it is there.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(wrong(name, "is there more than once"));
    }
    first
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_e| wrong(name, "holds bytes that are not ASCII"))
}

/// The key of an idempotent request: a structured-field string (`"…"`) or a bare token.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const NAME: &str = "idempotency-key";
    let Some(text) = single(headers, NAME)? else {
        return Ok(None);
    };
    let key = match text.strip_prefix('"') {
        Some(rest) => rest
            .strip_suffix('"')
            .ok_or_else(|| wrong(NAME, "has no closing quote"))?,
        None => text,
    };
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !plain {
        return Err(wrong(
            NAME,
            format!("must be 1 to {MAX_KEY_BYTES} visible ASCII characters without quotes"),
        ));
    }
    Ok(Some(key.to_owned()))
}

/// The promised SHA-256 (`Repr-Digest: sha-256=:…:`, RFC 9530); other algorithms are left alone.
pub fn repr_digest(headers: &HeaderMap) -> Result<Option<Hash>, Problem> {
    const NAME: &str = "repr-digest";
    let Some(text) = single(headers, NAME)? else {
        return Ok(None);
    };
    let mut members = text.split(',').map(str::trim);
    let Some(value) = members.find_map(|m| m.strip_prefix("sha-256=")) else {
        return Ok(None);
    };
    let inner = value.strip_prefix(':').and_then(|v| v.strip_suffix(':'));
    let decoded = inner
        .and_then(|inner| STANDARD.decode(inner).ok())
        .and_then(|raw| raw.try_into().ok());
    decoded
        .map(Some)
        .ok_or_else(|| wrong(NAME, "sha-256 must be :<base64 of 32 bytes>:"))
}

/// The checksum of a piece (`Upload-Checksum: sha1 <base64>`, tus).
pub fn upload_checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Problem> {
    const NAME: &str = "upload-checksum";
    let Some(text) = single(headers, NAME)? else {
        return Ok(None);
    };
    let (algorithm, value) = text.split_once(' ').unwrap_or((text, ""));
    let raw = STANDARD
        .decode(value.trim())
        .map_err(|_e| wrong(NAME, "must be an algorithm, a space and base64"))?;
    let checksum = match algorithm {
        "sha1" => raw.try_into().map(Checksum::Sha1),
        "sha256" => raw.try_into().map(Checksum::Sha256),
        _ => return Err(wrong(NAME, "the algorithm must be sha1 or sha256")),
    };
    checksum
        .map(Some)
        .map_err(|_raw| wrong(NAME, "has another length than its algorithm gives"))
}

/// What a client says of a file (`Upload-Metadata: key base64,…`, tus), as it said it.
pub fn upload_metadata(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const NAME: &str = "upload-metadata";
    let Some(text) = single(headers, NAME)? else {
        return Ok(None);
    };
    if text.len() > MAX_METADATA_BYTES {
        return Err(wrong(NAME, format!("has more than {MAX_METADATA_BYTES} bytes")));
    }
    let mut keys = Vec::new();
    for pair in text.split(',') {
        let (key, value) = pair.trim().split_once(' ').unwrap_or((pair.trim(), ""));
        if key.is_empty() || keys.contains(&key) || STANDARD.decode(value).is_err() {
            return Err(wrong(
                NAME,
                "must be pairs of a key, each once, and a value in base64",
            ));
        }
        keys.push(key);
    }
    Ok(Some(text.to_owned()))
}

/// A digest as `Repr-Digest` says it.
pub fn repr_digest_value(hexadecimal: &str) -> String {
    let raw: Vec<u8> = (0..hexadecimal.len() / 2)
        .filter_map(|i| u8::from_str_radix(hexadecimal.get(2 * i..2 * i + 2)?, 16).ok())
        .collect();
    format!("sha-256=:{}:", STANDARD.encode(raw))
}

/// A required whole number.
pub fn number(headers: &HeaderMap, name: &str) -> Result<u64, Problem> {
    optional_number(headers, name)?.ok_or_else(|| wrong(name, "is required here"))
}

/// A whole number, if it is there.
pub fn optional_number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = single(headers, name)? else {
        return Ok(None);
    };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong(name, "must be a whole number of bytes"));
    }
    text.parse()
        .map(Some)
        .map_err(|_e| wrong(name, "is too large a number"))
}

/// A structured-field boolean (`?0`, `?1`), if it is there.
pub fn boolean(headers: &HeaderMap, name: &str) -> Result<Option<bool>, Problem> {
    match single(headers, name)? {
        None => Ok(None),
        Some("?1") => Ok(Some(true)),
        Some("?0") => Ok(Some(false)),
        Some(_) => Err(wrong(name, "must be ?0 or ?1")),
    }
}

/// The announced size of the body.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The media type without its parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> String {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Which of the offered media types the client likes best; the first one when it does not care.
pub fn accepted<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Result<&'a str, Problem> {
    let asked: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let asked = asked.join(",");
    if asked.trim().is_empty() {
        return offered
            .first()
            .copied()
            .ok_or_else(|| Problem::internal("nothing is offered"));
    }
    let mut best: Option<(f32, usize, &'a str)> = None;
    for (place, offer) in offered.iter().enumerate() {
        let quality = asked
            .split(',')
            .filter_map(|range| matches(range, offer))
            .max_by(f32::total_cmp);
        if let Some(quality) = quality.filter(|q| *q > 0.0)
            && best.is_none_or(|(q, _, _)| quality > q)
        {
            best = Some((quality, place, offer));
        }
    }
    best.map(|(_, _, offer)| offer).ok_or_else(|| {
        Problem::new(
            problem::NOT_ACCEPTABLE,
            format!("this resource is available as {}", offered.join(", ")),
        )
    })
}

/// The quality with which a media range covers an offer; a precise range counts a little more than a wildcard.
fn matches(range: &str, offer: &str) -> Option<f32> {
    let mut parts = range.split(';').map(str::trim);
    let wanted = parts.next()?.to_ascii_lowercase();
    let precision = match wanted.as_str() {
        "*/*" => 0.0,
        wanted if wanted == offer => 0.002,
        wanted if wanted.strip_suffix("/*") == offer.split('/').next() => 0.001,
        _ => return None,
    };
    let quality = parts
        .find_map(|p| p.strip_prefix("q="))
        .map_or(Some(1.0), |q| q.parse().ok())?;
    Some(if quality > 0.0 { quality + precision } else { 0.0 })
}

/// The W3C trace context, if it has the right form.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let hex = text
        .bytes()
        .all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (lengths == [2, 32, 16, 2] && hex).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("header"),
            );
        }
        map
    }

    #[test]
    fn keys_come_quoted_or_bare() {
        for (given, key) in [("\"abc-1\"", "abc-1"), ("abc-1", "abc-1")] {
            let found = idempotency_key(&headers("idempotency-key", &[given])).expect("valid");
            assert_eq!(found.as_deref(), Some(key));
        }
        for wrong in [&["\"abc"][..], &[""], &["a b"], &["a", "b"], &[&"x".repeat(256)]] {
            assert!(
                idempotency_key(&headers("idempotency-key", wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn digests_are_read_and_written() {
        let value = repr_digest_value(&"ab".repeat(32));
        let found = repr_digest(&headers("repr-digest", &[&value])).expect("valid");
        assert_eq!(found, Some([0xab; 32]));
        assert_eq!(
            repr_digest(&headers("repr-digest", &["md5=:AAAA:"])).expect("ignored"),
            None
        );
        for wrong in ["sha-256=:AAAA:", "sha-256=AAAA", "sha-256=:***:"] {
            assert!(repr_digest(&headers("repr-digest", &[wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn checksums_and_metadata_are_read_as_tus_writes_them() {
        let sum = |text: &str| upload_checksum(&headers("upload-checksum", &[text]));
        let zeros = STANDARD.encode([0; 20]);
        assert_eq!(
            sum(&format!("sha1 {zeros}")).expect("valid"),
            Some(Checksum::Sha1([0; 20]))
        );
        for wrong in [
            &format!("sha256 {zeros}"),
            &format!("md5 {zeros}"),
            "sha1",
            "sha1 *",
            "",
        ] {
            assert!(sum(wrong).is_err(), "{wrong}");
        }
        let said = |text: &str| upload_metadata(&headers("upload-metadata", &[text]));
        let text = "filename d29ybGQ=,is_confidential";
        assert_eq!(said(text).expect("valid").as_deref(), Some(text));
        for wrong in ["", "a b*", "a d29ybGQ=,a d29ybGQ=", ",", &"k".repeat(5000)] {
            assert!(said(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_in_a_header_makes_them_fail_otherwise(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let Ok(value) = HeaderValue::from_bytes(&raw) else { return Ok(()) };
            for name in [
                "idempotency-key", "repr-digest", "upload-offset", "upload-complete", "upload-checksum",
                "upload-metadata", "accept",
            ] {
                let mut map = HeaderMap::new();
                map.insert(HeaderName::from_static(name), value.clone());
                let codes = [
                    idempotency_key(&map).err(),
                    repr_digest(&map).err(),
                    optional_number(&map, "upload-offset").err(),
                    boolean(&map, "upload-complete").err(),
                    upload_checksum(&map).err(),
                    upload_metadata(&map).err(),
                ];
                for problem in codes.into_iter().flatten() {
                    prop_assert_eq!(problem.code(), "header_invalid");
                }
                if let Err(problem) = accepted(&map, &["application/json"]) {
                    prop_assert_eq!(problem.code(), "not_acceptable");
                }
            }
        }
    }

    #[test]
    fn the_client_chooses_the_representation() {
        const OFFERED: [&str; 2] = ["application/json", "text/html"];
        for (accept, want) in [
            ("", "application/json"),
            ("*/*", "application/json"),
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
            ("text/*", "text/html"),
            ("application/json;q=0.2, text/html;q=0.1", "application/json"),
            ("*/*, text/html", "text/html"),
        ] {
            assert_eq!(
                accepted(&headers("accept", &[accept]), &OFFERED).expect(accept),
                want,
                "{accept}"
            );
        }
        assert!(accepted(&headers("accept", &["image/png"]), &OFFERED).is_err());
        assert!(accepted(&headers("accept", &["text/html;q=0"]), &OFFERED).is_err());
    }
}
