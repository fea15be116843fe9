//! Sources that break each rule once, to see every rule bite.

use crate::*;

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn an_edge_that_is_not_in_the_table() {
    let spellings = [
        "use crate::http::page::Cursors;",
        "use crate::{\n    domain,\n    http::{page, path},\n};",
        "fn f() { let _ = crate::http::path::x(); }",
        "mod inner { use super::super::super::http; }",
    ];
    for text in spellings {
        let planted = source("src/server/domain/planted.rs", text);
        let found = strange_edges(&[planted], "src/server", SERVER, &[]);
        assert!(
            found
                .iter()
                .any(|line| line.contains("domain must not know http")),
            "{text}: {found:?}"
        );
    }
    let from_a_root = source("src/server/domain/mod.rs", "\nuse super::store::Rows;");
    let found = strange_edges(&[from_a_root], "src/server", SERVER, &[]);
    assert_eq!(found, ["src/server/domain/mod.rs:2: domain must not know store"]);
}

#[test]
fn what_only_looks_like_an_edge() {
    let texts = [
        "// use crate::http::page;",
        "/* crate::http /* crate::http */ crate::http */",
        "/// See [`Cursors`](crate::http::page::Cursors).\nstruct S;",
        "const S: &str = \"crate::http\"; const R: &str = r#\"crate::http \"quoted\"\"#;",
        "fn f<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' } // crate::http",
        "mod tests { use super::http; }",
    ];
    for text in texts {
        let planted = source("src/server/domain/planted.rs", text);
        let found = strange_edges(&[planted], "src/server", SERVER, &[]);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn test_code_may_know_more_than_the_room() {
    let inside = source("src/server/worker/tests/planted.rs", "use crate::store::Rows;");
    let beside = source("src/server/worker/planted.rs", "use crate::store::Rows;");
    let strange = |source| strange_edges(&[source], "src/server", SERVER, SERVER_TESTS).len();
    assert_eq!((strange(inside), strange(beside)), (0, 1));
}

#[test]
fn a_table_that_says_too_much() {
    let found = unused_edges(&[source("src/server/store/planted.rs", "")], "src/server", SERVER);
    assert!(
        found.iter().any(|line| line.starts_with("store → domain")),
        "{found:?}"
    );
}

#[test]
fn an_outside_crate_in_the_wrong_room() {
    let planted = source(
        "src/server/domain/planted.rs",
        "use sqlx::query;\nuse axum::{Json, http};",
    );
    let found = strange_crates(&[planted], "src/server");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn siblings_that_meet() {
    let texts = [
        "use super::rtn::Rtn;",
        "use super::{Task, rtn};",
        "use crate::techniques::rtn;",
    ];
    for text in texts {
        let planted = source("src/engine/techniques/nf4.rs", text);
        assert_eq!(quarrels(&[planted], &FAMILIES[0]).len(), 1, "{text}");
    }
    let shared = source(
        "src/engine/techniques/nf4.rs",
        "use super::options::{self, Options};",
    );
    assert!(quarrels(&[shared], &FAMILIES[0]).is_empty());
    let database = source(
        "src/server/store/sqlite/mod.rs",
        "use crate::store::postgres::open;",
    );
    assert_eq!(quarrels(&[database], &FAMILIES[3]).len(), 1);
}

#[test]
fn climbing_and_globs() {
    assert_eq!(
        climbs(&source("x.rs", "\nuse super::super::problem::Problem;")),
        [2]
    );
    assert!(climbs(&source("x.rs", "use super::problem; // super::super")).is_empty());
    let globs = "pub use a::*;\npub(super) use b::{c, d::*};\nuse e::*;\npub use f::g;";
    assert_eq!(glob_re_exports(&source("x.rs", globs)), [1, 2]);
}
