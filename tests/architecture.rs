//! Who may know whom. The compiler keeps the two crates apart; this keeps their rooms apart.
//!
//! A room is a folder or file right under `src/server` or `src/engine`. A path into another room is an edge, and the tables
//! hold every edge: a new one is a decision, made here, one that nobody uses a mistake. `src/README.md` explains them.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "architecture/arrows.rs"]
mod arrows;
#[path = "architecture/paths.rs"]
mod paths;
#[path = "architecture/planted.rs"]
mod planted;
#[path = "support/sources.rs"]
mod sources;

use std::collections::BTreeSet;

use arrows::{ENGINE, Edges, OUTSIDE, SERVER, SERVER_TESTS};
use paths::{climbs, glob_re_exports, named};
use sources::{Source, modules, root, rust_files};

/// What the engine's manifest must not name, so that it cannot know it.
const NOT_IN_ENGINE: &[&str] = &["axum", "hyper", "reqwest", "sqlx", "tokio", "tracing"];

/// Parts of `std` that the engine must not use: its only way out is an `Observer`.
const NOT_IN_ENGINE_STD: &[&str] = &["env", "net", "process", "time"];

/// A folder whose members nobody in it names but its `mod.rs`: they do not know each other, and what they share does
/// not know them.
struct Family {
    crate_root: &'static str,
    folder: &'static str,
    /// Empty: all but those that the `mod.rs` lists as shared by siblings.
    members: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        crate_root: "src/engine",
        folder: "src/engine/techniques",
        members: &[],
    },
    Family {
        crate_root: "src/engine",
        folder: "src/engine/formats",
        members: &[],
    },
    Family {
        crate_root: "src/engine",
        folder: "src/engine/models",
        members: &[],
    },
    Family {
        crate_root: "src/server",
        folder: "src/server/store",
        members: &["postgres", "sqlite"],
    },
];

impl Family {
    fn members(&self) -> Vec<String> {
        if !self.members.is_empty() {
            return self.members.iter().map(|name| (*name).to_owned()).collect();
        }
        let shared = self.shared();
        let mut members = modules(self.folder);
        members.retain(|name| !shared.contains(name));
        members
    }

    /// What the `mod.rs` says: `//! Shared by siblings: `a`, `b`.`
    fn shared(&self) -> Vec<String> {
        let text = std::fs::read_to_string(root().join(self.folder).join("mod.rs")).expect("a mod.rs");
        let list = text
            .lines()
            .find_map(|line| line.strip_prefix("//! Shared by siblings: "));
        let names = list.unwrap_or_default().split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }
}

/// The room of a file, or none for the crate's root.
fn room_of(path: &str, crate_root: &str) -> Option<String> {
    let inner = path.strip_prefix(crate_root)?.strip_prefix('/')?;
    let first = inner.split('/').next()?.trim_end_matches(".rs");
    (first != "lib").then(|| first.to_owned())
}

/// Code that exists only for tests of a room: its own files, by where they lie.
fn is_test(path: &str) -> bool {
    ["/tests/", "/conformance/"]
        .iter()
        .any(|part| path.contains(part))
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
}

fn allowed(edges: Edges, room: &str, other: &str) -> bool {
    edges
        .iter()
        .any(|(from, to)| *from == room && to.contains(&other))
}

/// Every edge between rooms: from, to, where.
fn edges(sources: &[Source], crate_root: &str) -> Vec<(String, String, String, bool)> {
    let mut found = Vec::new();
    for source in sources {
        let Some(room) = room_of(&source.path, crate_root) else {
            continue;
        };
        for path in named(source, crate_root).into_iter().filter(|path| path.inside) {
            let Some(other) = path.segments.first().filter(|other| **other != room) else {
                continue;
            };
            // `crate::Error` is the crate's public face, not a room.
            if other.starts_with(|c: char| c.is_lowercase()) {
                let place = format!("{}:{}", source.path, path.line);
                found.push((room.clone(), other.clone(), place, is_test(&source.path)));
            }
        }
    }
    found
}

/// Edges that no table holds.
fn strange_edges(sources: &[Source], crate_root: &str, table: Edges, in_tests: Edges) -> Vec<String> {
    edges(sources, crate_root)
        .into_iter()
        .filter(|(from, to, _, test)| {
            let held = allowed(table, from, to) || *test && allowed(in_tests, from, to);
            !held
        })
        .map(|(from, to, place, _)| format!("{place}: {from} must not know {to}"))
        .collect()
}

/// Edges that a table holds and nobody uses.
fn unused_edges(sources: &[Source], crate_root: &str, table: Edges) -> Vec<String> {
    let used: BTreeSet<(String, String)> = edges(sources, crate_root)
        .into_iter()
        .map(|(from, to, _, _)| (from, to))
        .collect();
    let listed = table
        .iter()
        .flat_map(|(from, to)| to.iter().map(|to| ((*from).to_owned(), (*to).to_owned())));
    listed
        .filter(|edge| !used.contains(edge))
        .map(|(from, to)| format!("{from} → {to} is allowed, but nobody uses it"))
        .collect()
}

/// Outside crates in rooms that must not use them.
fn strange_crates(sources: &[Source], crate_root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !is_test(&source.path)) {
        let Some(room) = room_of(&source.path, crate_root) else {
            continue;
        };
        for path in named(source, crate_root) {
            let rule = OUTSIDE
                .iter()
                .find(|(name, _)| !path.inside && path.segments[0] == *name);
            if let Some((name, rooms)) = rule
                && !rooms.contains(&room.as_str())
            {
                found.push(format!(
                    "{}:{}: {room} must not use {name}",
                    source.path, path.line
                ));
            }
        }
    }
    found.dedup();
    found
}

/// Places in a family that name a member.
fn quarrels(sources: &[Source], family: &Family) -> Vec<String> {
    let inner = family.folder.trim_start_matches(family.crate_root);
    let folder: Vec<&str> = inner.trim_start_matches('/').split('/').collect();
    let members = family.members();
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !is_test(&source.path)) {
        let rest = source.path.strip_prefix(family.folder);
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        let member = rest
            .split('/')
            .next()
            .expect("a first part")
            .trim_end_matches(".rs");
        if member == "mod" {
            continue;
        }
        for path in named(source, family.crate_root)
            .into_iter()
            .filter(|path| path.inside)
        {
            let begins_here = folder.iter().zip(&path.segments).all(|(a, b)| *a == b.as_str());
            let below = path.segments.get(folder.len()).filter(|_| begins_here);
            if let Some(other) = below.filter(|other| *other != member && members.contains(other)) {
                found.push(format!(
                    "{}:{}: {member} must not know {other}",
                    source.path, path.line
                ));
            }
        }
    }
    found
}

fn none(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn rooms_of_the_server_know_only_what_the_table_says() {
    let sources = rust_files("src/server");
    none(&strange_edges(&sources, "src/server", SERVER, SERVER_TESTS));
    none(&unused_edges(&sources, "src/server", SERVER));
    none(&unused_edges(&sources, "src/server", SERVER_TESTS));
    none(&strange_crates(&sources, "src/server"));
}

#[test]
fn rooms_of_the_engine_know_only_what_the_table_says() {
    let sources = rust_files("src/engine");
    none(&strange_edges(&sources, "src/engine", ENGINE, &[]));
    none(&unused_edges(&sources, "src/engine", ENGINE));
}

#[test]
fn the_tables_hold_every_room_and_the_servers_has_no_circle() {
    for (table, folder) in [(SERVER, "src/server"), (ENGINE, "src/engine")] {
        let rooms: Vec<&str> = table.iter().map(|(room, _)| *room).collect();
        assert_eq!(rooms, modules(folder), "{folder}");
    }
    // Take away what depends on nothing that is left, until nothing is left.
    let mut left: Vec<_> = SERVER.to_vec();
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(room, _)| *room).collect();
        let before = left.len();
        left.retain(|(_, to)| to.iter().any(|to| names.contains(to)));
        assert!(left.len() < before, "a circle among {names:?}");
    }
}

#[test]
fn siblings_do_not_know_each_other() {
    for family in FAMILIES {
        none(&quarrels(&rust_files(family.folder), family));
    }
}

#[test]
fn what_siblings_share_is_there() {
    for family in FAMILIES {
        let modules = modules(family.folder);
        for name in family.shared() {
            assert!(modules.contains(&name), "{}: no {name}", family.folder);
        }
        assert!(family.members().len() > 1, "{}", family.folder);
    }
}

#[test]
fn nobody_climbs_two_floors_or_re_exports_by_glob() {
    for source in rust_files("src") {
        let climbs = climbs(&source);
        assert!(
            climbs.is_empty(),
            "{}:{climbs:?}: write the path from crate",
            source.path
        );
        let globs = glob_re_exports(&source);
        assert!(
            globs.is_empty(),
            "{}:{globs:?}: name what is re-exported",
            source.path
        );
    }
}

#[test]
fn the_engine_has_no_socket_clock_or_database() {
    let manifest = std::fs::read_to_string(root().join("src/engine/Cargo.toml")).expect("a manifest");
    for line in manifest.lines() {
        let name = line.split(['.', ' ', '=']).next().expect("a first part");
        assert!(
            !NOT_IN_ENGINE.contains(&name),
            "src/engine/Cargo.toml names {name}"
        );
    }
    for source in rust_files("src/engine")
        .iter()
        .filter(|source| !is_test(&source.path))
    {
        for path in named(source, "src/engine") {
            let part = path.segments.get(1).map_or("", String::as_str);
            let strange = path.segments[0] == "std" && NOT_IN_ENGINE_STD.contains(&part);
            assert!(
                !strange,
                "{}:{}: the engine must not use std::{part}",
                source.path, path.line
            );
        }
    }
}
