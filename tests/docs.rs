//! The documents say what the code does.

#[path = "corefile/machine.rs"]
mod machine;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use doorstep::config::{self, Config};
use doorstep::metrics::names;

use machine::{Machine, options};

const README: &str = include_str!("../README.md");
const MANIFEST: &str = include_str!("../deploy/node-local-dns.yaml");

fn load(template: &str) -> Config {
    config::load(&options(), &Machine::node().file(BASE, template))
        .unwrap_or_else(|error| panic!("{template}\n{error}"))
}

/// Where `options` has the template.
const BASE: &str = "/etc/coredns/Corefile.base";

/// What stands between the fences of a kind.
fn fenced<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("```{kind}\n");
    text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_corefile_of_the_readme_is_served() {
    let corefiles = fenced(README, "corefile");
    assert!(!corefiles.is_empty());
    for corefile in corefiles {
        let config = load(corefile);
        assert!(config.warnings.is_empty() && config.omitted.is_empty(), "{config:?}");
    }
}

#[test]
fn the_manifests_template_is_served_whole() {
    let template: String = MANIFEST
        .lines()
        .skip_while(|line| *line != "  Corefile: |")
        .skip(1)
        .take_while(|line| *line != "---")
        .map(|line| format!("{}\n", line.trim_start_matches("    ")))
        .collect();
    let filled = template
        .replace("__PILLAR__LOCAL__DNS__", "169.254.20.10")
        .replace("__PILLAR__DNS__DOMAIN__", "cluster.local")
        .replace("__PILLAR__DNS__SERVER__", "10.96.0.10");
    let config = load(&filled);
    assert!(config.warnings.is_empty() && config.omitted.is_empty(), "{config:?}");
    assert_eq!(config.server.blocks.len(), 4);
    let upstreams: Vec<String> =
        config.server.blocks.iter().map(|block| block.forwards[0].to[0].address.to_string()).collect();
    assert_eq!(upstreams, ["10.96.0.99:53", "10.96.0.99:53", "10.96.0.99:53", "192.0.2.53:53"]);
}

#[test]
fn the_manifests_arguments_are_understood() {
    let arguments = MANIFEST.split("        args:\n").nth(1).unwrap();
    let arguments = arguments.lines().map_while(|line| line.strip_prefix("        - "));
    let filled = arguments.map(|argument| {
        argument
            .replace("__PILLAR__LOCAL__DNS__", "169.254.20.10")
            .replace("__PILLAR__DNS__SERVER__", "10.96.0.10")
            .into()
    });
    let line = std::iter::once("doorstep".into()).chain(filled);
    let command = doorstep::cli::parse(line).unwrap();
    let doorstep::cli::Command::Serve(args) = command else { panic!("{command:?}") };
    assert_eq!(args.local_ips.len(), 2);
    assert_eq!(args.upstream_service, "kube-dns-upstream");
    assert_eq!(args.warnings, Vec::<String>::new());
}

#[test]
fn the_readmes_flags_are_those_of_the_program() {
    let help = Command::new(env!("CARGO_BIN_EXE_doorstep")).arg("-help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flag = |line: &str| {
        line.trim_start().strip_prefix('-').and_then(|rest| rest.split(' ').next().map(str::to_owned))
    };
    let offered: BTreeSet<String> =
        help.lines().filter(|line| line.starts_with("  -")).filter_map(flag).collect();
    let table = README.split("## Flags").nth(1).unwrap().split("\n\n").nth(1).unwrap();
    let told: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split('`'))
        .filter_map(|word| word.strip_prefix('-').map(str::to_owned))
        .filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect();
    assert_eq!(told, offered);
}

#[test]
fn the_readmes_directives_are_those_served() {
    let paragraph = README.split("\nServed: ").nth(1).unwrap().split(", snippets").next().unwrap();
    let told: Vec<&str> = paragraph.split('`').filter(|word| !word.trim().is_empty()).collect();
    assert_eq!(told, config::directive::served());
}

#[test]
fn every_metric_of_the_readme_exists() {
    let known: BTreeSet<&str> = names::ALL.iter().map(|family| family.name).collect();
    let told: Vec<&str> = README
        .split('`')
        .filter(|word| word.starts_with("coredns_") || word.starts_with("doorstep_"))
        .filter(|word| !word.ends_with('_'))
        .collect();
    assert!(told.len() > 5);
    for name in told {
        assert!(known.contains(name), "{name}");
    }
}

#[test]
fn every_file_the_documents_link_to_exists() {
    for (document, text) in [
        ("README.md", README),
        ("ARCHITECTURE.md", include_str!("../ARCHITECTURE.md")),
        ("deploy/doctor.md", include_str!("../deploy/doctor.md")),
        ("benches/README.md", include_str!("../benches/README.md")),
    ] {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.contains("://") && !target.starts_with('#') {
                let path = document.with_file_name(target);
                assert!(path.exists(), "{} links to {target}", document.display());
            }
        }
    }
}
