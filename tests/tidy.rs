//! Habits that no compiler keeps: module docs, file sizes, names, and documents that say what the code says.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "support/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::path::Path;

use modelpress_engine::{catalog, presets};
use sources::{Source, modules, root, rust_files};

const MOST_LINES: usize = 500;
const VAGUE_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];
/// Spelled in two parts, so that this file does not hold them.
const PROMISES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

fn everything() -> Vec<Source> {
    [rust_files("src"), rust_files("tests")].concat()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("the document is there")
}

/// What is wrong with a file as text.
fn faults(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{path}: begins without a module doc (//!)"));
    }
    if !text.ends_with('\n') || text.ends_with("\n\n") {
        found.push(format!("{path}: ends without exactly one line break"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        found.push(format!(
            "{path}: {lines} lines, {MOST_LINES} at most: split it by what it owns"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        let promises = PROMISES.iter().any(|word| line.contains(word));
        if promises && !names_an_issue(line) {
            found.push(format!(
                "{path}:{}: a promise without an issue number (#123)",
                number + 1
            ));
        }
        for name in VAGUE_NAMES {
            let declares = line
                .split_once("mod ")
                .is_some_and(|(_, rest)| rest.trim_end_matches([';', ' ', '{']) == *name);
            if declares {
                found.push(format!(
                    "{path}:{}: a module named {name} says nothing",
                    number + 1
                ));
            }
        }
    }
    let vague = Path::new(path)
        .with_extension("")
        .components()
        .any(|part| VAGUE_NAMES.contains(&part.as_os_str().to_string_lossy().as_ref()));
    if vague {
        found.push(format!("{path}: its name says nothing"));
    }
    found
}

fn names_an_issue(line: &str) -> bool {
    let mut parts = line.split('#').skip(1);
    parts.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Words between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Cells of the table rows between a heading and the next one.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let section = document
        .split_once(&format!("\n{heading}\n"))
        .expect("the heading is there")
        .1;
    let section = section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|'));
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    section.skip(2).map(cells).collect()
}

#[test]
fn every_file_is_tidy() {
    let found: Vec<String> = everything().iter().flat_map(faults).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn untidy_files_are_noticed() {
    let count = |path: &str, text: &str| {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        faults(&source).len()
    };
    assert_eq!(count("src/a.rs", "//! Fine.\n"), 0);
    assert_eq!(count("src/a.rs", "fn no_doc() {}\n"), 1);
    assert_eq!(count("src/a.rs", "//! No line break."), 1);
    assert_eq!(
        count("src/a.rs", &format!("//! Long.\n{}", "\n".repeat(500) + "x\n")),
        1
    );
    let promise = |rest: &str| format!("//! Doc.\n// {}{rest}\n", PROMISES[0]);
    assert_eq!(count("src/a.rs", &promise(": later")), 1);
    assert_eq!(count("src/a.rs", &promise("(#12): later")), 0);
    assert_eq!(count("src/a.rs", "//! Doc.\nmod utils;\n"), 1);
    assert_eq!(count("src/misc/a.rs", "//! Doc.\n"), 1);
}

#[test]
fn the_map_of_the_house_names_every_room() {
    let map = read("src/README.md");
    for folder in ["engine", "server"] {
        let rows = table(&map, &format!("### {folder}"));
        let named: Vec<String> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
        let rooms: Vec<String> = named
            .iter()
            .map(|name| name.trim_end_matches('/').trim_end_matches(".rs").to_owned())
            .collect();
        let mut sorted = rooms.clone();
        sorted.sort();
        assert_eq!(
            sorted,
            modules(&format!("src/{folder}")),
            "src/README.md, {folder}"
        );
        for name in named {
            let path = root().join("src").join(folder).join(&name);
            assert!(
                path.exists() && path.is_dir() == name.ends_with('/'),
                "src/{folder}/{name}"
            );
        }
    }
}

#[test]
fn the_readme_lists_what_there_is() {
    let readme = read("README.md");
    let listed = |heading: &str| -> BTreeSet<String> {
        table(&readme, heading)
            .iter()
            .flat_map(|row| quoted(&row[0]))
            .collect()
    };
    let names =
        |names: Vec<&'static str>| -> BTreeSet<String> { names.into_iter().map(str::to_owned).collect() };
    assert_eq!(listed("## Recipes"), names(presets::names()));
    let techniques = catalog::techniques().iter().map(|entry| entry.name).collect();
    assert_eq!(listed("### Techniques"), names(techniques));
    let formats = catalog::formats().iter().map(|entry| entry.name).collect();
    assert_eq!(listed("## Formats"), names(formats));
}

/// `modelpress openapi --pages openapi/techniques` writes them.
#[test]
fn every_technique_has_its_page() {
    for page in catalog::pages() {
        let stored = read(&format!("openapi/techniques/{}", page.name));
        assert_eq!(
            stored, page.text,
            "{} is not what the engine says of itself",
            page.name
        );
        if page.name == "README.md" {
            continue;
        }
        let headings: Vec<&str> = page.text.lines().filter(|l| l.starts_with("## ")).collect();
        let expected = ["## Formula", "## Options", "## When to use it", "## Measured"];
        assert_eq!(headings, expected, "{}", page.name);
        let title = format!("# {}", page.name.trim_end_matches(".md"));
        assert_eq!(page.text.lines().next(), Some(title.as_str()));
    }
}

/// A guarantee that nothing shows is a wish: each row names files and tests in them.
#[test]
fn every_guarantee_has_its_test() {
    let rows = table(&read("README.md"), "## Guarantees");
    assert!(rows.len() >= 5, "the table is read: {rows:?}");
    for row in rows {
        // Several files stand apart by semicolons, each with its tests after it.
        for place in row[1].split(';') {
            let shown = quoted(place);
            assert!(shown.len() >= 2, "{}: names no test", row[0]);
            let text = read(&shown[0]);
            for test in &shown[1..] {
                let is_there = text
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word == test);
                assert!(is_there, "{} has no test {test}", shown[0]);
            }
        }
    }
}
