//! Which paths a file names: enough of a Rust reader to expand `use` trees and resolve `crate`, `self` and `super`.
//!
//! It knows tokens, not types: comments, strings and character literals are skipped, macros are read like code.

use crate::sources::Source;

/// A path that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Segments from the crate's root (`http`, `page`), or from an outside crate's name.
    pub(crate) segments: Vec<String>,
    /// True for a path into this crate.
    pub(crate) inside: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    PathSeparator,
    Other(char),
}

type Tokens = Vec<(usize, Token)>;

/// Every path that the file names. `crate_root` is the folder of the crate, for example `src/server`.
pub(crate) fn named(source: &Source, crate_root: &str) -> Vec<Named> {
    let tokens = tokens(&source.text);
    let own = module_of(&source.path, crate_root);
    let mut found = Vec::new();
    let (mut depth, mut inline) = (0_usize, Vec::new());
    for at in 0..tokens.len() {
        match &tokens[at].1 {
            Token::Other('{') => {
                depth += 1;
                if at >= 2 && tokens[at - 2].1 == Token::Word("mod".to_owned()) {
                    inline.push(depth);
                }
            }
            Token::Other('}') => {
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
                depth = depth.saturating_sub(1);
            }
            Token::Word(_) if begins_path(&tokens, at) => {
                let mut paths = Vec::new();
                expand(&tokens, at, Vec::new(), &mut paths);
                found.extend(
                    paths
                        .into_iter()
                        .map(|(line, path)| resolve(line, path, &own, inline.len())),
                );
            }
            _ => {}
        }
    }
    found
}

/// Lines with `super::super`.
pub(crate) fn climbs(source: &Source) -> Vec<usize> {
    let tokens = tokens(&source.text);
    let word = Token::Word("super".to_owned());
    let pairs = tokens
        .windows(3)
        .filter(|w| w[0].1 == word && w[1].1 == Token::PathSeparator && w[2].1 == word);
    pairs.map(|w| w[0].0).collect()
}

/// Lines of `pub use …::*`, in any visibility but private.
pub(crate) fn glob_re_exports(source: &Source) -> Vec<usize> {
    let tokens = tokens(&source.text);
    let mut lines = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        if *token != Token::Word("use".to_owned()) || !follows_pub(&tokens, at) {
            continue;
        }
        let statement = tokens[at..].iter().take_while(|(_, t)| *t != Token::Other(';'));
        if statement.clone().any(|(_, t)| *t == Token::Other('*')) {
            lines.push(*line);
        }
    }
    lines
}

/// `pub use` or `pub(in crate::x) use`.
fn follows_pub(tokens: &Tokens, at: usize) -> bool {
    let before = tokens[..at].iter().rev();
    let mut before = before.map(|(_, token)| token).skip_while({
        let mut inside = false;
        move |token| {
            match token {
                Token::Other(')') => inside = true,
                Token::Other('(') => {
                    inside = false;
                    return true;
                }
                _ => {}
            }
            inside
        }
    });
    before.next() == Some(&Token::Word("pub".to_owned()))
}

fn begins_path(tokens: &Tokens, at: usize) -> bool {
    let follows = at > 0 && tokens[at - 1].1 == Token::PathSeparator;
    let goes_on = tokens.get(at + 1).map(|(_, token)| token) == Some(&Token::PathSeparator);
    !follows && goes_on
}

/// Reads the path or `use` tree that begins at `at`; answers where it ends.
fn expand(tokens: &Tokens, at: usize, mut path: Vec<String>, out: &mut Vec<(usize, Vec<String>)>) -> usize {
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    let mut at = at;
    loop {
        match tokens.get(at).map(|(_, token)| token) {
            Some(Token::Word(word)) => path.push(word.clone()),
            Some(Token::Other('{')) if !path.is_empty() => return group(tokens, at + 1, &path, out),
            _ => break,
        }
        at += 1;
        if tokens.get(at).map(|(_, token)| token) != Some(&Token::PathSeparator) {
            break;
        }
        at += 1;
    }
    out.push((line, path));
    at
}

/// Reads the trees of `{…}` after the brace; answers where they end.
fn group(tokens: &Tokens, at: usize, prefix: &[String], out: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut at = at;
    while let Some((_, token)) = tokens.get(at) {
        at = match token {
            Token::Other('}') => return at + 1,
            Token::Word(word) if word == "as" => at + 2,
            Token::Word(_) => expand(tokens, at, prefix.to_vec(), out),
            _ => at + 1,
        };
    }
    at
}

/// Module path of a file: `src/server/http/page.rs` in `src/server` is `http::page`, a `mod.rs` is its folder.
fn module_of(path: &str, crate_root: &str) -> Vec<String> {
    let inner = path
        .strip_prefix(crate_root)
        .unwrap_or(path)
        .trim_start_matches('/');
    let mut parts: Vec<String> = inner
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

fn resolve(line: usize, path: Vec<String>, own: &[String], inline: usize) -> Named {
    let climbs = path.iter().take_while(|word| *word == "super").count();
    let base = match path.first().map(String::as_str) {
        Some("crate") => Some((Vec::new(), 1)),
        Some("self") => Some((own.to_vec(), 1)),
        Some("super") => {
            let levels = own.len().saturating_sub(climbs.saturating_sub(inline));
            Some((own[..levels].to_vec(), climbs))
        }
        _ => None,
    };
    match base {
        Some((mut base, skip)) => {
            base.extend(path.into_iter().skip(skip));
            Named {
                line,
                segments: base,
                inside: true,
            }
        }
        None => Named {
            line,
            segments: path,
            inside: false,
        },
    }
}

fn tokens(text: &str) -> Tokens {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(&c) = chars.get(at) {
        let begun = at;
        if c.is_alphabetic() || c == '_' {
            at += chars[at..]
                .iter()
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .count();
            let word: String = chars[begun..at].iter().collect();
            // The prefix of a literal: r"…", br#"…"#, b'…'.
            let literal = matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr")
                && matches!(chars.get(at), Some('"' | '#' | '\''));
            if literal && chars.get(at) != Some(&'\'') {
                at = end_of_string(&chars, at, word.contains('r'));
            } else {
                out.push((line, Token::Word(word)));
            }
        } else {
            at = match (c, chars.get(at + 1)) {
                ('/', Some('/')) => begun + chars[begun..].iter().take_while(|c| **c != '\n').count(),
                ('/', Some('*')) => end_of_comment(&chars, at),
                ('"', _) => end_of_string(&chars, at, false),
                ('\'', _) => end_of_character(&chars, at),
                (':', Some(':')) => {
                    out.push((line, Token::PathSeparator));
                    at + 2
                }
                _ => {
                    if !c.is_whitespace() {
                        out.push((line, Token::Other(c)));
                    }
                    at + 1
                }
            };
        }
        line += chars[begun..at.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    out
}

fn end_of_comment(chars: &[char], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// `at` is on the opening quote, or on the first `#` of a raw string.
fn end_of_string(chars: &[char], at: usize, raw: bool) -> usize {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        // r#type: a raw identifier.
        return at + hashes;
    }
    let mut at = at + hashes + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' if !raw => at += 2,
            '"' if chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes => {
                return at + 1 + hashes;
            }
            _ => at += 1,
        }
    }
    at
}

/// A character literal, or only the quote of a lifetime.
fn end_of_character(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let rest = chars[at + 3..].iter().take_while(|c| **c != '\'').count();
            at + 3 + rest + 1
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}
