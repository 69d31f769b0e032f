//! Rust source as the checks see it: comments and literals blanked out, tests cut off, functions and paths found.
//!
//! No parser, and none needed: the checks look for words, paths and matching braces, and these can be found once what
//! is no code is out of the way.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
}

impl Source {
    /// A made-up file, for a check's own test.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Every file below `root` of which the name ends in `suffix`, sorted.
    pub fn all(root: &Path, below: &str, suffix: &str) -> Vec<Self> {
        let mut paths = Vec::new();
        collect(&root.join(below), suffix, &mut paths);
        paths.sort();
        let source = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let path = path.strip_prefix(root).expect("below the root");
            Self { path: path.to_str().expect("a plain name").replace('\\', "/"), text }
        };
        paths.into_iter().map(source).collect()
    }

    /// True for a file that holds nothing but tests.
    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// The code: without comments, literals and tests, but line by line where it was.
    pub fn code(&self) -> String {
        if self.is_test() { String::new() } else { without_tests(&blank(&self.text)) }
    }
}

fn collect(dir: &Path, suffix: &str, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            collect(&path, suffix, paths);
        } else if path.to_str().is_some_and(|path| path.ends_with(suffix)) {
            paths.push(path);
        }
    }
}

/// Turns comments, and what stands between quotes, into spaces; line ends stay.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if let Some(end) = end {
            out[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
        at = end.unwrap_or(at + 1);
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// Where the comment or literal that begins at `at` ends, if one does.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after = |from: usize, what: &[u8]| {
        let found = rest.get(from..)?.windows(what.len()).position(|window| window == what)?;
        Some(at + from + found + what.len())
    };
    let end = bytes.len();
    if rest.starts_with(b"//") {
        return Some(rest.iter().position(|b| *b == b'\n').map_or(end, |line| at + line));
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment(bytes, at));
    }
    let within_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if !within_word && (rest[0] == b'r' || rest.starts_with(b"br")) {
        let prefix = if rest[0] == b'r' { 1 } else { 2 };
        let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
        if rest.get(prefix + hashes) == Some(&b'"') {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            return Some(after(prefix + hashes + 1, &close).unwrap_or(end));
        }
    }
    match rest[0] {
        b'"' => Some(closing(bytes, at, b'"')),
        // A character, not a lifetime: 'x' or '\…'.
        b'\'' if rest.get(1) == Some(&b'\\') => Some(closing(bytes, at, b'\'')),
        b'\'' => {
            let len = std::str::from_utf8(&rest[1..]).ok()?.chars().next()?.len_utf8();
            (rest.get(1 + len) == Some(&b'\'')).then_some(at + len + 2)
        }
        _ => None,
    }
}

fn block_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        let step = match &bytes[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

fn closing(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Blanks what belongs to `#[cfg(test)]`: a module, or whatever item follows.
fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    while let Some(start) = code.find("#[cfg(test)]") {
        let rest = &code[start..];
        let open = rest.find(['{', ';']).unwrap_or(rest.len());
        let end = if rest[open..].starts_with('{') { matching(&code, start + open) } else { start + open + 1 };
        let end = end.min(code.len());
        let blanked: String = code[start..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        code.replace_range(start..end, &blanked);
    }
    code
}

/// Just behind the brace that closes the one at `open`.
pub fn matching(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Words with the place where they begin.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    code.split(move |c| !is_word(c)).filter_map(move |word| {
        let start = at;
        at += word.len();
        at += code[at..].chars().next().map_or(0, char::len_utf8);
        (!word.is_empty()).then_some((start, word))
    })
}

/// The number of the line that a place is in, from 1.
pub fn line(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Every function with a body: its name, first line and number of lines.
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in words(code).filter(|(_, word)| *word == "fn") {
        let Some((_, name)) = words(&code[at..]).nth(1) else { continue };
        // `fn(A) -> B` is a type.
        if !code[at + 2..].trim_start().starts_with(name) {
            continue;
        }
        let mut depth = 0_i32;
        let body = code[at..].char_indices().find(|(_, c)| {
            depth += i32::from(matches!(c, '(' | '[')) - i32::from(matches!(c, ')' | ']'));
            depth == 0 && matches!(c, '{' | ';')
        });
        if let Some((open, '{')) = body {
            let (first, last) = (line(code, at), line(code, matching(code, at + open) - 1));
            found.push((name.to_owned(), first, last - first + 1));
        }
    }
    found
}

/// Every path that begins with `crate` or `super`, written out from the crate's root, with its line. `module` is the
/// path of the file's module.
pub fn paths(code: &str, module: &[&str]) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    for (at, root) in words(code).filter(|(_, word)| matches!(*word, "crate" | "super")) {
        let before = code[..at].trim_end();
        if before.ends_with("::") || before.ends_with('$') {
            continue;
        }
        let mut base: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
        if root == "crate" {
            base.clear();
        } else {
            base.pop();
        }
        // `pub(super)` is no import.
        if let Some(start) = after_colons(code, at + root.len()) {
            let mut trees = Vec::new();
            tree(code, start, &base, &mut trees);
            found.extend(trees.into_iter().map(|path| (path, line(code, at))));
        }
    }
    found
}

fn after_blanks(code: &str, at: usize) -> usize {
    code.len() - code[at..].trim_start().len()
}

/// Where the next segment begins, if a `::` comes first.
fn after_colons(code: &str, at: usize) -> Option<usize> {
    let at = after_blanks(code, at);
    code[at..].starts_with("::").then(|| after_blanks(code, at + 2))
}

/// Follows a use tree from the segment, brace or star at `at`; gives where it ends.
fn tree(code: &str, mut at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    if code[at..].starts_with('{') {
        let end = matching(code, at);
        at += 1;
        loop {
            at = after_blanks(code, at);
            if at + 1 >= end {
                return end;
            }
            at = tree(code, at, &path, found);
            // Over an `as name`.
            at = code[at..end].find(',').map_or(end, |comma| at + comma + 1);
        }
    }
    if let Some((0, word)) = words(&code[at..]).next() {
        match word {
            "super" => drop(path.pop()),
            "self" => {}
            _ => path.push(word.to_owned()),
        }
        at += word.len();
        if let Some(next) = after_colons(code, at) {
            return tree(code, next, &path, found);
        }
    }
    found.push(path);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let text = "a /* b /* c */ d */ e // f\ng \"h \\\" i\" 'j' '\\'' <'k> r#\"l \" m\"# b\"n\" for 'é' o";
        let left: Vec<_> = words(&blank(text)).map(|(_, word)| word.to_owned()).collect();
        assert_eq!(left, ["a", "e", "g", "k", "b", "for", "o"]);
        assert_eq!(blank(text).len(), text.len());
    }

    #[test]
    fn tests_are_cut_off_and_lines_stay() {
        let source = Source::new("src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n");
        let names: Vec<_> = functions(&source.code()).into_iter().map(|(name, line, _)| (name, line)).collect();
        assert_eq!(names, [("a".to_owned(), 1), ("c".to_owned(), 6)]);
        assert_eq!(Source::new("src/a/tests.rs", "fn a() {}").code(), "");
    }

    #[test]
    fn functions_are_measured_from_their_first_line_to_their_last() {
        let code = "trait T { fn a(); }\nfn b(x: [u8; 2],\n  y: fn(u8) -> u8)\nwhere T: U,\n{\n  {\n  }\n}\n";
        assert_eq!(functions(code), [("b".to_owned(), 2, 7)]);
    }

    #[test]
    fn paths_are_written_out() {
        let code =
            "use crate::{a::{self, b as c}, d::*, e};\nuse super::f;\nfn g() { super::super::h::i::<crate::J>() }\n";
        let found: Vec<_> = paths(code, &["x", "y", "z"]).into_iter().map(|(p, l)| (p.join("::"), l)).collect();
        let expected = [("a", 1), ("a::b", 1), ("d", 1), ("e", 1), ("x::y::f", 2), ("x::h::i", 3), ("J", 3)];
        assert_eq!(found, expected.map(|(path, line)| (path.to_owned(), line)));
    }
}
