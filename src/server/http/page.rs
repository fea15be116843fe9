//! Lists in pages: `?limit=&after=`, the envelope, and cursors that cannot be forged.
//!
//! Owns: the cursor's form (tag + filter hash + last sort key, base64url) and the `Link` header.
//! Must not know: what is listed.
//! Invariant: a cursor opens only with the list and filters it was sealed for.

use std::str::FromStr;

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::{self, Problem};

/// Items a page has unless the client says otherwise.
pub const DEFAULT_LIMIT: u32 = 20;
/// Most items a page can have.
pub const MAX_LIMIT: u32 = 100;

const TAG_BYTES: usize = 16;
const FILTER_BYTES: usize = 8;

/// A page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PageOut<T> {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// The items.
    pub data: Vec<T>,
    /// Whether another page follows.
    pub has_more: bool,
    /// Pass it as `after` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T> PageOut<T> {
    /// The page of `rows`, of which one more than `limit` was asked for; `seal` makes the cursor after a row.
    pub fn of<R>(rows: &[R], limit: u32, render: impl Fn(&R) -> T, seal: impl FnOnce(&R) -> String) -> Self {
        let limit = limit as usize;
        let has_more = rows.len() > limit;
        let shown = &rows[..rows.len().min(limit)];
        let next_cursor = shown.last().filter(|_| has_more).map(seal);
        Self {
            object: "list",
            data: shown.iter().map(render).collect(),
            has_more,
            next_cursor,
        }
    }
}

/// Seals and opens cursors with this installation's key.
#[derive(Clone)]
pub struct Cursors {
    /// The hash of the secret, padded to HMAC's block.
    key: [u8; 64],
}

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursors(***)")
    }
}

impl Cursors {
    /// Cursors under a secret of any length.
    pub fn new(secret: &[u8]) -> Self {
        let mut key = [0; 64];
        key[..32].copy_from_slice(&Sha256::digest(secret));
        Self { key }
    }

    /// A cursor after the item with this sort key, in the list that `filter` describes.
    pub fn seal(&self, filter: &str, sort_key: &str) -> String {
        let mut payload = filter_hash(filter).to_vec();
        payload.extend_from_slice(sort_key.as_bytes());
        let mut sealed = self.tag(&payload).to_vec();
        sealed.extend_from_slice(&payload);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// The sort key inside a cursor, if it is ours and of this list.
    pub fn open(&self, filter: &str, cursor: &str) -> Result<String, Problem> {
        let invalid = || {
            Problem::new(
                problem::CURSOR_INVALID,
                "`after` must be a next_cursor from this list",
            )
        };
        let sealed = URL_SAFE_NO_PAD.decode(cursor).map_err(|_e| invalid())?;
        let (tag, payload) = sealed.split_at_checked(TAG_BYTES).ok_or_else(invalid)?;
        let (hash, sort_key) = payload.split_at_checked(FILTER_BYTES).ok_or_else(invalid)?;
        let mut mac = self.mac();
        mac.update(payload);
        mac.verify_truncated_left(tag).map_err(|_e| invalid())?;
        if hash != filter_hash(filter) {
            let detail = "the cursor was made with other filters; start again without `after`";
            return Err(Problem::new(problem::CURSOR_MISMATCH, detail));
        }
        String::from_utf8(sort_key.to_vec()).map_err(|_e| invalid())
    }

    /// The typed sort key inside a cursor, if there is a cursor.
    pub fn open_id<T: FromStr>(&self, filter: &str, cursor: Option<&str>) -> Result<Option<T>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        let text = self.open(filter, cursor)?;
        let unreadable = |_e| {
            Problem::new(
                problem::CURSOR_INVALID,
                "the cursor is from another version; start again",
            )
        };
        text.parse().map(Some).map_err(unreadable)
    }

    fn tag(&self, payload: &[u8]) -> [u8; TAG_BYTES] {
        let mut mac = self.mac();
        mac.update(payload);
        let full = mac.finalize().into_bytes();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&full[..TAG_BYTES]);
        tag
    }

    fn mac(&self) -> Hmac<Sha256> {
        <Hmac<Sha256> as KeyInit>::new(&self.key.into())
    }
}

fn filter_hash(filter: &str) -> [u8; FILTER_BYTES] {
    let full = Sha256::digest(filter.as_bytes());
    let mut hash = [0; FILTER_BYTES];
    hash.copy_from_slice(&full[..FILTER_BYTES]);
    hash
}

/// The checked page size.
pub fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        n @ 1..=MAX_LIMIT => Ok(n),
        n => {
            let detail = format!("limit is {n}; it must be 1 to {MAX_LIMIT}");
            Err(Problem::new(problem::QUERY_INVALID, detail.clone()).with_error(
                "/limit",
                "out_of_range",
                detail,
            ))
        }
    }
}

/// The page as a response, with `Link: <…>; rel="next"` when there is more.
pub fn render<T: Serialize>(uri: &Uri, page: &PageOut<T>) -> Response {
    let mut response = axum::Json(page).into_response();
    if let Some(link) = page
        .next_cursor
        .as_deref()
        .and_then(|cursor| next_link(uri, cursor))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

fn next_link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let kept = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty() && !p.starts_with("after="));
    let query: Vec<&str> = kept.collect();
    let joined = if query.is_empty() {
        String::new()
    } else {
        format!("{}&", query.join("&"))
    };
    HeaderValue::from_str(&format!("<{}?{joined}after={cursor}>; rel=\"next\"", uri.path())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_opens_only_its_own_list() {
        let cursors = Cursors::new(b"secret");
        let cursor = cursors.seal("jobs|status=queued", "k1");
        assert_eq!(cursors.open("jobs|status=queued", &cursor).expect("ours"), "k1");
        assert_eq!(
            cursors.open("jobs|", &cursor).expect_err("other filter").code(),
            "cursor_mismatch"
        );
        let other = Cursors::new(b"other");
        assert_eq!(
            other
                .open("jobs|status=queued", &cursor)
                .expect_err("other key")
                .code(),
            "cursor_invalid"
        );
    }

    #[test]
    fn the_next_link_keeps_the_filters() {
        let uri: Uri = "/v1/jobs?status=queued&after=old&limit=2".parse().expect("uri");
        let link = next_link(&uri, "new").expect("fits a header");
        assert_eq!(link, "</v1/jobs?status=queued&limit=2&after=new>; rel=\"next\"");
    }

    proptest! {
        #[test]
        fn no_other_text_opens(text in "\\PC{0,80}") {
            prop_assert!(Cursors::new(b"secret").open("f", &text).is_err());
        }

        #[test]
        fn one_changed_byte_is_noticed(key in "[a-z0-9_]{1,40}", at in 0usize..40) {
            let cursors = Cursors::new(b"secret");
            let mut raw = URL_SAFE_NO_PAD.decode(cursors.seal("f", &key)).expect("base64");
            let at = at % raw.len();
            raw[at] ^= 1;
            prop_assert!(cursors.open("f", &URL_SAFE_NO_PAD.encode(raw)).is_err());
        }
    }
}
