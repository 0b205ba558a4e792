//! The layers of `src/lib.rs` hold: who may import whom, and what has one place only.
//!
//! Each rule is a function of sources, so that a made-up one shows that the rule bites.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "layers/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::Source;

/// What anyone may import.
const LEAVES: [&str; 9] =
    ["clock", "confinement", "json", "logging", "metrics", "ready", "resident", "route_message", "sockets"];
/// What each module may import besides itself. Those that are not here may import anything.
const ARROWS: [(&str, &[&str]); 20] = [
    ("clock", &[]),
    ("confinement", &[]),
    ("json", &[]),
    ("logging", &LEAVES),
    ("metrics", &LEAVES),
    ("ready", &LEAVES),
    ("resident", &[]),
    ("route_message", &[]),
    ("sockets", &LEAVES),
    ("wire", &[]),
    ("cache", &["wire", "clock"]),
    ("forward", &["wire"]),
    ("plugin", &["wire", "metrics"]),
    ("server", &["cache", "forward", "plugin", "wire", "clock", "metrics"]),
    ("node", &["route_message"]),
    // Of the server the batch alone: how datagrams are received and sent.
    ("guardian", &["node", "server", "clock", "resident", "sockets"]),
    ("admin", &["metrics", "ready"]),
    ("demo", &["json", "node"]),
    ("doctor", &["node", "json", "metrics"]),
    ("config", &["wire", "cache", "forward", "plugin", "server", "node", "admin", "route_message"]),
];
/// Those that put the others together.
const WIRING: [&str; 4] = ["app", "cli", "lib", "main"];
/// Modules that `config` knows by what their config.rs exports, and no more.
const CONFIGURED: [&str; 6] = ["cache", "forward", "plugin", "server", "node", "admin"];
/// What `config` may take of `wire`.
const NAMES: [&str; 2] = ["Name", "NameError"];

const LONGEST_FILE: usize = 400;
const UNSAFE: [&str; 11] = [
    "cache/region.rs",
    "demo/namespace.rs",
    "demo/program.rs",
    "demo/user_namespace.rs",
    "resident.rs",
    "server/batch/many.rs",
    "server/batch/mod.rs",
    "server/batch/outbox.rs",
    "server/batch/packet_info.rs",
    "server/batch/slice.rs",
    "server/batch/wake.rs",
];
const METRIC_NAMES: &str = "metrics/names.rs";

#[test]
fn the_layers_hold() {
    let sources = sources();
    let exported = exported(&sources);
    let mut broken = Vec::new();
    for source in &sources {
        broken.extend(arrows(source));
        broken.extend(config_sees_only_config(source, &exported));
        broken.extend(length(source));
        broken.extend(glob_imports(source));
        broken.extend(unsafe_code(source));
        broken.extend(metric_strings(source));
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// A module that appears must find its layer.
#[test]
fn every_module_has_a_layer() {
    let known: BTreeSet<&str> = ARROWS.iter().map(|(module, _)| *module).chain(WIRING).collect();
    let sources = sources();
    let found: BTreeSet<&str> = sources.iter().map(Source::module).collect();
    assert_eq!(found, known);
}

/// A list that names what is no longer there permits what nobody decided.
#[test]
fn the_files_with_unsafe_code_are_those() {
    let sources = sources();
    let found: BTreeSet<&str> = sources
        .iter()
        .filter(|source| !source.lines_with("unsafe").is_empty())
        .map(|source| &*source.path)
        .collect();
    assert_eq!(found, BTreeSet::from(UNSAFE));
}

fn arrows(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    let mut broken = Vec::new();
    for path in source.crate_paths() {
        let Some(target) = path.segments.first() else { continue };
        if target != module && !allowed.contains(&target.as_str()) {
            broken.push(format!("{}:{}: {module} must not know {target}", source.path, path.line));
        }
    }
    broken
}

/// What the modules' config.rs export, as (module, name).
fn exported(sources: &[Source]) -> BTreeSet<(String, String)> {
    let mut exported = BTreeSet::new();
    for module in CONFIGURED {
        let root = sources.iter().find(|source| source.path == format!("{module}/mod.rs"));
        let text = root.map_or("", |root| &root.text);
        for (_, rest) in
            text.match_indices("pub use config::").map(|(at, found)| (at, &text[at + found.len()..]))
        {
            let names = rest.split(';').next().unwrap_or("").trim_matches(['{', '}']);
            exported.extend(names.split(',').map(|name| (module.to_owned(), name.trim().to_owned())));
        }
    }
    exported
}

fn config_sees_only_config(source: &Source, exported: &BTreeSet<(String, String)>) -> Vec<String> {
    if source.module() != "config" {
        return Vec::new();
    }
    let may = |module: &str, name: &str| match module {
        "wire" => NAMES.contains(&name),
        _ if CONFIGURED.contains(&module) => exported.contains(&(module.to_owned(), name.to_owned())),
        _ => true,
    };
    let mut broken = Vec::new();
    let mut refuse = |line: usize, module: &str, name: &str| {
        broken.push(format!("{}:{line}: config must not know {module}::{name}", source.path));
    };
    for path in source.crate_paths() {
        match &path.segments[..] {
            [module] => {
                let bound = path.alias.as_deref().unwrap_or(module);
                let members = source.members_of(bound).into_iter();
                members
                    .filter(|(_, name)| !may(module, name))
                    .for_each(|(line, name)| refuse(line, module, &name));
            }
            [module, name, ..] if !may(module, name) => refuse(path.line, module, name),
            _ => {}
        }
    }
    broken
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let too_long = lines > LONGEST_FILE && !source.is_test();
    too_long
        .then(|| format!("{}: {lines} lines are more than {LONGEST_FILE}", source.path))
        .into_iter()
        .collect()
}

fn glob_imports(source: &Source) -> Vec<String> {
    let program = source.program().lines().enumerate();
    let glob =
        program.filter(|(_, line)| line.trim_start().trim_start_matches("pub ").starts_with("use super::*"));
    glob.map(|(index, _)| format!("{}:{}: `use super::*` outside tests", source.path, index + 1)).collect()
}

fn unsafe_code(source: &Source) -> Vec<String> {
    if UNSAFE.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let lines = source.lines_with("unsafe").into_iter();
    lines.map(|line| format!("{}:{line}: unsafe code has its files", source.path)).collect()
}

fn metric_strings(source: &Source) -> Vec<String> {
    if source.path == METRIC_NAMES {
        return Vec::new();
    }
    let named = |text: &str| text.starts_with("coredns_") || text.starts_with("doorstep_");
    let strings = source.strings().into_iter().filter(|(_, text)| named(text));
    strings
        .map(|(line, text)| format!("{}:{line}: {text} belongs into {METRIC_NAMES}", source.path))
        .collect()
}

/// Everything below `src`.
fn sources() -> Vec<Source> {
    fn walk(folder: &Path, root: &Path, sources: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                sources.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    walk(&root, &root, &mut sources);
    assert!(sources.len() > 50);
    sources
}

fn broken(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&Source::new(path, text)).len()
}

#[test]
fn a_forbidden_arrow_is_found() {
    for (path, text) in [
        ("wire/name.rs", "use crate::clock::Moment;"),
        ("cache/mod.rs", "use crate::forward::Chain;"),
        ("cache/mod.rs", "use super::forward::Chain;"),
        ("cache/store.rs", "fn f() -> super::super::server::Block { loop {} }"),
        ("forward/pool.rs", "use crate::{wire::Name, cache::Entry};"),
        ("node/rules.rs", "fn f(name: crate::wire::Name) {}"),
        ("server/mod.rs", "use crate::config::Config;"),
        ("metrics/mod.rs", "use crate::wire::Rcode;"),
        ("admin/mod.rs", "use crate::{ready::Ready, app};"),
        ("config/load.rs", "use crate::app::serve;"),
        ("sockets.rs", "use crate::server::Wake;"),
        ("doctor/mod.rs", "use crate::wire::Name;"),
        ("node/mod.rs", "use crate::doctor::Facts;"),
    ] {
        assert_eq!(broken(arrows, path, text), 1, "{path}: {text}");
    }
    let allowed = "use crate::cache::Entry;\nuse crate::forward::Chain;\nuse crate::wire::{Key, Name};";
    assert_eq!(broken(arrows, "server/miss.rs", allowed), 0);
    assert_eq!(broken(arrows, "app/mod.rs", allowed), 0);
}

#[test]
fn config_that_knows_more_than_config_is_found() {
    let exported = BTreeSet::from([("server".to_owned(), "Block".to_owned())]);
    let rule = |source: &Source| config_sees_only_config(source, &exported);
    for text in [
        "use crate::server::Misses;",
        "use crate::server; fn f(m: server::Misses) {}",
        "use crate::{server as other}; fn f(m: other::Misses) {}",
        "use crate::wire::Key;",
        "use crate::{wire, server}; fn f(b: server::Block, k: &wire::Key) {}",
    ] {
        assert_eq!(broken(rule, "config/blocks.rs", text), 1, "{text}");
    }
    let allowed = "use crate::server::{self, Block}; use crate::wire::Name; fn f(b: server::Block) {}";
    assert_eq!(broken(rule, "config/blocks.rs", allowed), 0);
}

#[test]
fn config_exports_are_read() {
    let source =
        Source::new("cache/mod.rs", "pub use config::{Config,\n    Prefetch};\npub use entry::Entry;");
    let names: Vec<_> = exported(&[source]).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["Config", "Prefetch"]);
}

#[test]
fn a_long_file_is_found() {
    let text = "\n".repeat(LONGEST_FILE + 1);
    assert_eq!(broken(length, "wire/name.rs", &text), 1);
    assert_eq!(broken(length, "wire/name.rs", &text[1..]), 0);
    assert_eq!(broken(length, "wire/tests.rs", &text), 0);
    assert_eq!(broken(length, "wire/tests/name.rs", &text), 0);
}

#[test]
fn a_glob_import_is_found() {
    assert_eq!(broken(glob_imports, "wire/name.rs", "pub use super::*;"), 1);
    assert_eq!(broken(glob_imports, "wire/name.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}"), 0);
    assert_eq!(broken(glob_imports, "wire/tests.rs", "use super::*;"), 0);
}

#[test]
fn unsafe_code_is_found() {
    assert_eq!(broken(unsafe_code, "wire/name.rs", "fn f() { unsafe { g() } }"), 1);
    assert_eq!(
        broken(unsafe_code, "wire/name.rs", "// unsafe\n#![deny(unsafe_code)] const A: &str = \"unsafe\";"),
        0
    );
    assert_eq!(broken(unsafe_code, UNSAFE[0], "unsafe { g() }"), 0);
}

#[test]
fn a_metric_name_is_found() {
    for text in ["f(\"coredns_x_total\")", "f(r#\"doorstep_x\"#)"] {
        assert_eq!(broken(metric_strings, "server/miss.rs", text), 1, "{text}");
        assert_eq!(broken(metric_strings, METRIC_NAMES, text), 0);
    }
    assert_eq!(broken(metric_strings, "server/miss.rs", "// \"coredns_x\"\nf(\"see coredns_x\")"), 0);
}
