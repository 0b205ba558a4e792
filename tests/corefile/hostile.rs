//! Texts that want to break or exhaust the parser.

use std::time::{Duration, Instant};

use doorstep::config::corefile::{self, Source};
use doorstep::config::{Diagnostics, load};
use proptest::prelude::*;

use super::machine::{Machine, options};
use super::{CONF, report};

#[test]
fn bombs_are_refused_quickly() {
    let mut snippets = String::from("(s0) {\n log a b c d e f g h\n}\n");
    for level in 1..15 {
        let below = format!(" import s{}\n", level - 1);
        snippets += &format!("(s{level}) {{\n{}}}\n", below.repeat(10));
    }
    let prefixes = format!("{} {{\n}}\n", "0.0.0.0/1 ".repeat(1000));
    for text in [
        format!("{snippets}. {{\n import s14\n}}\n"),
        format!(". {{\n{}", "a {\n".repeat(100_000)),
        "}\n".repeat(50_000),
        format!(". {{\n log {}\n}}\n", "\"".repeat(100_001)),
        prefixes,
        "x".repeat(5 << 20),
        format!(". {{\n cache {}\n}}\n", "a..b ".repeat(50_000)),
    ] {
        let started = Instant::now();
        let report = report(&text).to_string();
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(report.len() < 100_000, "{}", report.len());
    }
}

fn parse(text: &str) -> (corefile::Corefile, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let source = Source { name: "Corefile".into(), directories: Vec::new(), text: text.into() };
    let parsed = corefile::parse(source, &Machine::default(), &mut diagnostics);
    (parsed, diagnostics)
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        let (_, diagnostics) = parse(&text);
        let _ = diagnostics.to_string();
    }

    #[test]
    fn no_corefile_like_text_breaks_anything(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "\n", "\n", "\"", "#", ",", ".:53", "a", "import", "(s)", "s", "{$X}",
                "{args[0]}", "{%", "\\", "cache", "forward", "errors", "bind", "log", "health",
                "30", "1.1.1.1", "/etc/resolv.conf", "force_tcp", "10.0.0.0/9", "é", "30s", "tls",
                "prefetch", "consolidate", "reload", "except", "serve_stale", "5%",
            ]),
            0..60,
        )
    ) {
        let text = words.join(" ");
        let result = load(&options(), &Machine::node().file(CONF, &text));
        if let Err(error) = result {
            prop_assert!(!error.to_string().is_empty());
        }
        let (tree, _) = parse(&text);
        let rendered = corefile::render(&tree);
        // A variable inside a variable's remains would be replaced the second time.
        if !tree.blocks.iter().any(|block| block.labels.is_empty())
            && !["{$", "{%", "{args"].iter().any(|open| rendered.contains(open))
        {
            let (again, diagnostics) = parse(&rendered);
            prop_assert!(diagnostics.is_clean(), "{}\n{}", rendered, diagnostics);
            prop_assert_eq!(again, tree, "{}", rendered);
        }
    }
}
