//! The rules that hold the architecture, as tests.
//!
//! Each check is a function from source text to complaints, run over the whole crate, and over a small made-up text
//! that breaks it: a rule whose breach is not noticed is no rule. What is compared is text, so an alias or a macro can
//! get around it; clocks, threads, random and hash maps in the pure modules are refused by clippy too, which sees
//! types (`clippy.toml`, and the attributes in `src/lib.rs`).

mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{Source, functions, line, paths, words};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// Who may import whom. The longest name that fits a path is its part; each part may use itself.
const IMPORTS: &[(&str, &str)] = &[
    ("types", ""),
    ("error", "types"),
    ("config", "types error"),
    ("telemetry", "types error config"),
    ("store", "types error"),
    // Listeners, of both APIs.
    ("net", ""),
    // Knows nothing of the store that it judges.
    ("history", ""),
    ("causal", "types error"),
    ("cluster", "types error"),
    ("machine", "types error causal cluster store"),
    ("wire", "types error causal cluster machine"),
    ("node", "types error config telemetry causal cluster machine store wire"),
    ("api", ""),
    ("api::rest", "types error config telemetry causal cluster machine node"),
    ("api::grpc", "types error config telemetry causal cluster machine net node wire"),
    ("server", "types error config telemetry causal cluster machine store net wire node api api::rest api::grpc"),
    (
        "cli",
        "types error config telemetry causal cluster machine store wire node api api::rest api::grpc server history",
    ),
];

/// The modules that are functions of state, time and input.
const PURE: &[&str] = &["causal", "cluster", "machine"];
/// What would make them anything else.
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "RandomState",
    "Instant",
    "SystemTime",
    "rand",
    "getrandom",
    "fastrand",
    "spawn",
    "thread",
    "async",
    "await",
    "tokio",
    "println",
    "eprintln",
];
const IMPURE_STD: &[&str] = &["time", "fs", "net", "thread", "process", "env", "io"];
/// The crates of gRPC and protobuf, and who may name them.
const PROTOBUF: &[(&str, &str)] =
    &[("prost", "wire api::grpc"), ("tonic", "wire api::grpc server"), ("proto", "wire api::grpc")];
const VAGUE: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];

type Check = fn(&Source) -> Vec<String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a check over every source file of the crate and shows all that it found.
fn hold(check: Check) {
    let sources = Source::all(root(), "src", ".rs");
    assert!(sources.len() > 10, "the sources were not found in {}", root().display());
    let complaints: Vec<_> = sources.iter().flat_map(check).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Runs a check over a made-up file.
#[track_caller]
fn expect(check: Check, path: &str, text: &str, complaints: &[&str]) {
    let found = check(&Source::new(path, text));
    let fits = found.len() == complaints.len() && found.iter().zip(complaints).all(|(f, c)| f.contains(c));
    assert!(fits, "{path}: {text:?}\nfound {found:?}\nexpected {complaints:?}");
}

/// The path of a file's module: `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`.
fn module(path: &str) -> Vec<&str> {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).collect()
}

/// The part of the crate that a path belongs to.
fn part(path: &[impl AsRef<str>]) -> Option<&'static str> {
    let fits = |name: &str| {
        let mut parts = path.iter().map(AsRef::as_ref);
        name.split("::").all(|segment| parts.next() == Some(segment))
    };
    IMPORTS.iter().map(|(name, _)| *name).filter(|name| fits(name)).max_by_key(|name| name.len())
}

fn imports(source: &Source) -> Vec<String> {
    let module = module(&source.path);
    let Some(own) = part(&module) else {
        let known = module.is_empty();
        return if known {
            vec![]
        } else {
            vec![format!("{}: it belongs to no part that the table names", source.path)]
        };
    };
    let allowed = IMPORTS.iter().find(|(name, _)| *name == own).map_or("", |(_, allowed)| allowed);
    let mut complaints = Vec::new();
    for (path, line) in paths(&source.code(), &module) {
        let Some(other) = part(&path) else { continue };
        let below_own = own == "api" && other.starts_with("api");
        if other != own && !below_own && !allowed.split(' ').any(|name| name == other) {
            complaints.push(format!("{}:{line}: {own} may not import {}", source.path, path.join("::")));
        } else if own == "machine"
            && other == "store"
            && path.get(1).is_some_and(|item| item.starts_with(char::is_lowercase))
        {
            complaints.push(format!(
                "{}:{line}: machine knows the store by its trait only, not {}",
                source.path,
                path.join("::")
            ));
        }
    }
    complaints
}

#[test]
fn imports_go_down_only() {
    hold(imports);
    expect(imports, "src/causal/item.rs", "use crate::types::Dot;\nuse super::context::Context;", &[]);
    expect(
        imports,
        "src/causal/item.rs",
        "\nuse crate::{types::Dot, cluster::map::Row};",
        &[":2: causal may not import cluster::map::Row"],
    );
    expect(
        imports,
        "src/cluster/map.rs",
        "fn a() { super::super::machine::step() }",
        &["cluster may not import machine::step"],
    );
    expect(imports, "src/machine/mod.rs", "use crate::store::{Batch, Store};\n// use crate::wire::Peer;", &[]);
    expect(
        imports,
        "src/machine/mod.rs",
        "use crate::store::{Store, memory::MemoryStore};",
        &["not store::memory::MemoryStore"],
    );
    expect(imports, "src/machine/mod.rs", "#[cfg(test)]\nmod tests { use crate::store::memory::MemoryStore; }", &[]);
    expect(imports, "src/machine/tests.rs", "use crate::store::memory::MemoryStore;", &[]);
    expect(
        imports,
        "src/store/disk/mod.rs",
        "use crate::machine::Machine;",
        &["store may not import machine::Machine"],
    );
    expect(
        imports,
        "src/api/rest/keys.rs",
        "use crate::api::grpc::ping;\nuse crate::wire::proto;",
        &["api::grpc::ping", "wire::proto"],
    );
    expect(imports, "src/api/grpc/mod.rs", "use super::rest::keys;", &["api::grpc may not import api::rest::keys"]);
    expect(imports, "src/api/mod.rs", "pub use crate::api::rest::serve;", &[]);
    expect(imports, "src/wire/mod.rs", "use crate::node::Handle;", &["wire may not import node::Handle"]);
    expect(imports, "src/shiny.rs", "", &["belongs to no part"]);
}

fn protobuf(source: &Source) -> Vec<String> {
    let code = source.code();
    let own = part(&module(&source.path)).unwrap_or("");
    let mut complaints = Vec::new();
    for (at, word) in words(&code) {
        let Some((_, allowed)) =
            PROTOBUF.iter().find(|(name, _)| word == *name || word.starts_with(&format!("{name}_")))
        else {
            continue;
        };
        if code[at + word.len()..].starts_with("::") && !allowed.split(' ').any(|name| name == own) {
            complaints.push(format!("{}:{}: {word} is for {allowed} only", source.path, line(&code, at)));
        }
    }
    complaints
}

#[test]
fn protobuf_stays_at_the_edge() {
    hold(protobuf);
    expect(protobuf, "src/wire/convert.rs", "use prost::Message;\nuse super::proto::Op;", &[]);
    expect(
        protobuf,
        "src/node/mod.rs",
        "use prost::Message;\nuse crate::wire::proto::Op;",
        &["prost is for", "proto is for"],
    );
    expect(protobuf, "src/api/rest/mod.rs", "use tonic_health::server;", &["tonic_health is for"]);
    expect(protobuf, "src/node/mod.rs", "let proto = 1;", &[]);
}

fn purity(source: &Source) -> Vec<String> {
    let module = module(&source.path);
    if !module.first().is_some_and(|first| PURE.contains(first)) {
        return vec![];
    }
    let code = source.code();
    let all: Vec<_> = words(&code).collect();
    let mut complaints = Vec::new();
    for (i, (at, word)) in all.iter().enumerate() {
        let of_std = *word == "std" && all.get(i + 1).is_some_and(|(_, next)| IMPURE_STD.contains(next));
        if IMPURE.contains(word) || of_std {
            let what = if of_std { format!("std::{}", all[i + 1].1) } else { (*word).to_owned() };
            complaints.push(format!(
                "{}:{}: {what} has no place in a pure module; time, random and effects go in and out as values",
                source.path,
                line(&code, *at)
            ));
        }
    }
    complaints
}

#[test]
fn the_core_is_pure() {
    hold(purity);
    expect(purity, "src/causal/a.rs", "use std::collections::BTreeMap;\n/// Not a HashMap.\nfn a() { \"async\" }", &[]);
    expect(purity, "src/causal/a.rs", "\nuse std::collections::{BTreeMap, HashMap};", &["a.rs:2: HashMap"]);
    expect(purity, "src/cluster/a.rs", "use std::time::Duration;\nasync fn a() {}", &["std::time", "async"]);
    expect(purity, "src/machine/a.rs", "fn a() { rand::random() + std::fs::read() }", &["rand", "std::fs"]);
    expect(purity, "src/machine/a.rs", "#[cfg(test)]\nmod tests {\n use std::time::Instant;\n}", &[]);
    expect(purity, "src/node/mod.rs", "use std::time::Instant;", &[]);
}

/// The parts that a simulation runs as they are: what they do must follow from what they are given.
const REPEATABLE: &[&str] = &["net", "wire", "node", "api::rest", "api::grpc", "server"];
/// What would make two runs differ, and the only files that may name it.
const UNREPEATABLE: &[(&str, &str)] =
    &[("std::time::Instant", "none"), ("SystemTime", "src/node/surroundings.rs"), ("getrandom", "src/server/mod.rs")];

fn repeatable(source: &Source) -> Vec<String> {
    if !part(&module(&source.path)).is_some_and(|own| REPEATABLE.contains(&own)) {
        return vec![];
    }
    let code = source.code();
    let mut complaints = Vec::new();
    for (at, _) in code.match_indices("select! {").filter(|(at, _)| !code[at + 9..].trim_start().starts_with("biased;"))
    {
        complaints.push(format!("{}:{}: begin it with biased;", source.path, line(&code, at)));
    }
    for (number, text) in (1..).zip(code.lines()) {
        let names = |name: &str| match name.rsplit_once("::") {
            Some((from, item)) => text.contains(from) && words(text).any(|(_, word)| word == item),
            None => words(text).any(|(_, word)| word == name),
        };
        let found = UNREPEATABLE.iter().filter(|(name, only)| names(name) && source.path != *only);
        complaints.extend(found.map(|(name, only)| {
            format!("{}:{number}: {name} makes two runs differ; who may name it: {only}", source.path)
        }));
    }
    complaints
}

#[test]
fn what_a_simulation_runs_is_left_to_no_chance() {
    hold(repeatable);
    expect(
        repeatable,
        "src/wire/a.rs",
        "use tokio::time::Instant;\ntokio::select! {\n  biased;\n  () = a => {} }",
        &[],
    );
    expect(repeatable, "src/wire/a.rs", "\ntokio::select! {\n  () = a => {} }", &["a.rs:2: begin it with biased"]);
    expect(repeatable, "src/node/a.rs", "use std::time::{Duration, Instant};", &["Instant makes two runs differ"]);
    expect(repeatable, "src/node/a.rs", "use std::time::SystemTime;", &["src/node/surroundings.rs"]);
    expect(repeatable, "src/node/surroundings.rs", "use std::time::SystemTime;", &[]);
    expect(repeatable, "src/api/rest/a.rs", "fn a() { getrandom::fill(&mut b) }", &["getrandom makes"]);
    expect(repeatable, "src/cli/a.rs", "use std::time::Instant;", &[]);
}

/// The root file, when it does not have clippy refuse in a pure module what `clippy.toml` lists.
fn clippy_in_the_core(source: &Source) -> Vec<String> {
    let denied = |name: &&&str| {
        let attribute = "#[cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]";
        source.text.contains(&format!("{attribute}\npub mod {name};"))
    };
    let open = PURE.iter().filter(|name| !denied(name));
    open.map(|name| format!("{}: clippy's disallowed types and methods are not denied in {name}", source.path))
        .collect()
}

#[test]
fn clippy_guards_the_core_too() {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).expect("the root file");
    let complaints = clippy_in_the_core(&Source::new("src/lib.rs", &text));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    let without = text.replacen("disallowed_types", "other", 1);
    expect(clippy_in_the_core, "src/lib.rs", &without, &["not denied in causal"]);
    let listed = std::fs::read_to_string(root().join("clippy.toml")).expect("clippy's settings");
    for item in ["HashMap", "HashSet", "Instant", "SystemTime", "thread::spawn", "tokio::spawn", "getrandom"] {
        assert!(listed.contains(item), "clippy.toml does not list {item}");
    }
}

/// Lines but for tests: a file of tests has none, and a module of tests at the end does not count.
fn file_length(source: &Source) -> Vec<String> {
    let lines = source.code().trim_end().lines().count();
    let long = lines > FILE_LINES;
    long.then(|| format!("{}: {lines} lines, more than {FILE_LINES}: split it", source.path)).into_iter().collect()
}

fn function_length(source: &Source) -> Vec<String> {
    let long = functions(&source.code()).into_iter().filter(|(.., lines)| *lines > FUNCTION_LINES);
    long.map(|(name, line, lines)| {
        format!("{}:{line}: fn {name} has {lines} lines, more than {FUNCTION_LINES}", source.path)
    })
    .collect()
}

#[test]
fn files_and_functions_are_short() {
    hold(file_length);
    hold(function_length);
    let lines = |n: usize| "let a = 1;\n".repeat(n);
    expect(file_length, "src/a.rs", &lines(500), &[]);
    expect(file_length, "src/a.rs", &lines(501), &["501 lines"]);
    expect(file_length, "src/a.rs", &format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(400), lines(400)), &[]);
    expect(file_length, "src/a/tests.rs", &lines(900), &[]);
    expect(function_length, "src/a.rs", &format!("fn a() {{\n{}}}\n", lines(68)), &[]);
    expect(function_length, "src/a.rs", &format!("\nfn a() {{\n{}}}\n", lines(69)), &["a.rs:2: fn a has 71 lines"]);
    expect(function_length, "src/a.rs", &format!("fn a() {{ \"{{\"\n{}}}\nfn b() {{}}\n", lines(60)), &[]);
}

fn opening(source: &Source) -> Vec<String> {
    let told = source.text.lines().next().and_then(|line| line.strip_prefix("//! ")).is_some_and(|text| text.len() > 5);
    let unwritten = source.text.contains(concat!("To be", " written"));
    match (told, unwritten) {
        (true, false) => vec![],
        (false, _) => vec![format!("{}: it does not open with //! and what it is for", source.path)],
        (_, true) => vec![format!("{}: it is still to be written", source.path)],
    }
}

#[test]
fn every_file_opens_with_its_purpose() {
    hold(opening);
    for below in ["tests", "examples", "benches"] {
        let complaints: Vec<_> = Source::all(root(), below, ".rs").iter().flat_map(opening).collect();
        assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    }
    expect(opening, "src/a.rs", "//! Clocks that only grow.\nuse a;", &[]);
    expect(opening, "src/a.rs", "// Clocks that only grow.\nuse a;", &["does not open"]);
    expect(opening, "src/a.rs", "//! Ok\nuse a;", &["does not open"]);
    expect(opening, "src/a.rs", "", &["does not open"]);
    expect(opening, "src/a.rs", concat!("//! To be", " written."), &["still to be written"]);
}

fn globs(source: &Source) -> Vec<String> {
    let code = source.code();
    let uses = code.match_indices("::*").filter(|(at, _)| {
        let next = code[at + 3..].trim_start().chars().next();
        matches!(next, Some(';' | ',' | '}')) && !code[..*at].ends_with("prelude")
    });
    uses.map(|(at, _)| format!("{}:{}: name what you import", source.path, line(&code, at))).collect()
}

#[test]
fn imports_have_names() {
    hold(globs);
    expect(globs, "src/a.rs", "use super::*;", &["a.rs:1: name what you import"]);
    expect(globs, "src/a.rs", "use a::{\n  b::*,\n};\npub use c::*;", &["a.rs:2", "a.rs:4"]);
    expect(globs, "src/a.rs", "use a::prelude::*;\n#[cfg(test)]\nmod tests {\n  use super::*;\n}", &[]);
}

fn vague_names(source: &Source) -> Vec<String> {
    let code = source.code();
    let mut names: BTreeSet<_> = module(&source.path).into_iter().filter(|name| VAGUE.contains(name)).collect();
    let all: Vec<_> = words(&code).collect();
    names.extend(all.windows(2).filter(|w| w[0].1 == "mod" && VAGUE.contains(&w[1].1)).map(|w| w[1].1));
    names.into_iter().map(|name| format!("{}: '{name}' says nothing; name it for what it does", source.path)).collect()
}

#[test]
fn names_say_something() {
    hold(vague_names);
    expect(vague_names, "src/causal/util.rs", "", &["'util'"]);
    expect(vague_names, "src/common/clock.rs", "", &["'common'"]);
    expect(vague_names, "src/a.rs", "mod helpers { }", &["'helpers'"]);
    expect(vague_names, "src/a.rs", "fn common() {}", &[]);
}

/// Dependencies of a Cargo.toml without a reason above them. A family (`tonic`, `tonic-health`) may share one.
fn reasons(source: &Source) -> Vec<String> {
    let (mut complaints, mut inside, mut above) = (Vec::new(), false, "");
    let mut seen = BTreeSet::new();
    for (i, text) in source.text.lines().enumerate() {
        if text.starts_with('[') {
            inside = text.trim_end_matches(']').ends_with("dependencies");
            seen.clear();
        }
        let name = text.split(['=', '.']).next().unwrap_or("").trim();
        if inside && text.contains('=') && !text.starts_with(['#', ' ', '}', ']']) {
            let family = |name: &str| name.split(['-', ' ']).next().unwrap_or("").to_owned();
            let shared = above.contains('=') && family(above) == family(name);
            if !above.starts_with("# ") && !shared {
                complaints.push(format!("{}:{}: say above it why {name} is needed", source.path, i + 1));
            }
            if !seen.insert(name) {
                complaints.push(format!("{}:{}: {name} is there twice", source.path, i + 1));
            }
        }
        above = text;
    }
    complaints
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let complaints = reasons(&Source::new("Cargo.toml", &manifest));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    let head = "[package]\nname = \"a\"\n[dependencies]\n";
    let good = format!("{head}# gRPC.\ntonic = \"1\"\ntonic-health = \"1\"\n# Bytes.\nbytes = {{ version = \"1\" }}\n");
    expect(reasons, "Cargo.toml", &good, &[]);
    expect(reasons, "Cargo.toml", &format!("{head}# gRPC.\ntonic = \"1\"\nbytes = \"1\"\n"), &["why bytes"]);
    expect(reasons, "Cargo.toml", &format!("{head}bytes = \"1\"\n"), &["Cargo.toml:4: say above it why bytes"]);
    expect(reasons, "Cargo.toml", &format!("{head}# A.\na = \"1\"\n# A.\na = \"1\"\n"), &["a is there twice"]);
}

#[test]
fn the_protocol_is_where_the_build_looks_for_it() {
    let protos = Source::all(root(), "proto/entail/v1", ".proto");
    assert!(!protos.is_empty(), "proto/entail/v1 has no .proto file");
    for source in &protos {
        assert!(source.text.contains("package entail.v1;"), "{}: not in the package entail.v1", source.path);
        assert!(source.text.starts_with("//"), "{}: it does not open with what it is for", source.path);
    }
    let build = std::fs::read_to_string(root().join("build.rs")).expect("a build script");
    assert!(build.contains("rerun-if-changed=proto\""), "build.rs runs again for changes in proto/, and nothing wider");
}
