use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::environment::Environment;
use crate::config::error::Diagnostics;

/// Files and variables from memory.
#[derive(Default)]
struct Memory {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, String>,
}

impl Environment for Memory {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, path: &Path, _limit: usize) -> io::Result<Vec<u8>> {
        let text = path.to_str().and_then(|path| self.files.get(path));
        text.map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
        let pattern = glob::Pattern::new(pattern)?;
        let names = self.files.keys().filter(|name| pattern.matches(name));
        Ok(names.map(PathBuf::from).collect())
    }

    fn interface_addresses(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn source(text: &str) -> Source {
    Source { name: "Corefile".into(), directories: vec!["/etc".into()], text: text.into() }
}

fn parsed_in(memory: &Memory, text: &str) -> Corefile {
    let mut diagnostics = Diagnostics::default();
    let corefile = parse(source(text), memory, &mut diagnostics);
    assert!(diagnostics.is_clean(), "{diagnostics}");
    corefile
}

fn parsed(text: &str) -> Corefile {
    parsed_in(&Memory::default(), text)
}

fn errors_in(memory: &Memory, text: &str) -> Vec<String> {
    let mut diagnostics = Diagnostics::default();
    parse(source(text), memory, &mut diagnostics);
    diagnostics.one_liners()
}

/// The tree on one line: `labels{ name args{...}; }`.
fn shape(corefile: &Corefile) -> String {
    fn words(words: &[Word]) -> String {
        let texts: Vec<String> = words.iter().map(|word| format!("<{}>", word.text)).collect();
        texts.concat()
    }
    fn lines(directives: &[Directive]) -> String {
        let line = |directive: &Directive| {
            let body = match &directive.body {
                Some(body) => format!("{{{}}}", lines(body)),
                None => String::new(),
            };
            format!("{}{}{body};", directive.name.text, words(&directive.args))
        };
        directives.iter().map(line).collect()
    }
    let block = |block: &Block| format!("{}{{{}}}", words(&block.labels), lines(&block.directives));
    corefile.blocks.iter().map(block).collect()
}

#[test]
fn blocks_labels_and_bodies() {
    for (text, expected) in [
        (". {\n errors\n}", "<.>{errors;}"),
        ("a:53 b:53 {\n}", "<a:53><b:53>{}"),
        ("a,\nb, c\n{\n}", "<a><b><c>{}"),
        ("a,b {\n}", "<a><b>{}"),
        (".\nerrors\ncache 30\n", "<.>{errors;cache<30>;}"),
        (". {\n forward . 1.1.1.1 { }\n}", "<.>{forward<.><1.1.1.1>{};}"),
        (
            ". {\n cache {\n  success 1 2\n  denial 3\n }\n errors\n}",
            "<.>{cache{success<1><2>;denial<3>;};errors;}",
        ),
        (". {\n cache { servfail 0 }\n}", "<.>{cache{servfail<0>;};}"),
        ("a {\n}\nb {\n}", "<a>{}<b>{}"),
        ("", ""),
        ("a", "<a>{}"),
    ] {
        assert_eq!(shape(&parsed(text)), expected, "{text}");
    }
}

#[test]
fn quotes_and_comments() {
    for (text, expected) in [
        (". { # all\n errors # yes\n # no\n}", "<.>{errors;}"),
        (". {\n log a#b\n}", "<.>{log<a#b>;}"),
        (". {\n log \"a b\" \"\"\n}", "<.>{log<a b><>;}"),
        (r#". { log "a \"q\" \. \\" }"#, r#"<.>{log<a "q" \. \\>;}"#),
        (". {\n log \"{\" \"}\"\n}", "<.>{log<{><}>;}"),
        ("\u{feff}. {\r\n errors\r\n}\r\n", "<.>{errors;}"),
    ] {
        assert_eq!(shape(&parsed(text)), expected, "{text}");
    }
}

#[test]
fn variables() {
    let mut memory = Memory::default();
    memory.variables.insert("IP", "10.0.0.1");
    memory.variables.insert("TWO", "a b");
    memory.variables.insert("NESTED", "{$IP}");
    for (text, expected) in [
        ("{$IP}", "<10.0.0.1>"),
        ("{%IP%}:53", "<10.0.0.1:53>"),
        ("{$NONE}", "<>"),
        ("{$NONE:30}", "<30>"),
        ("{$IP:30}", "<10.0.0.1>"),
        ("{$TWO}", "<a b>"),
        ("{$NESTED}", "<{$IP}>"),
        ("\"x {$IP}\"", "<x 10.0.0.1>"),
        ("{>id}", "<{>id}>"),
        ("{$IP", "<{$IP>"),
        ("{args[0]}", "<{args[0]}>"),
    ] {
        let corefile = parsed_in(&memory, &format!(". {{\n bind {text}\n}}"));
        assert_eq!(shape(&corefile), format!("<.>{{bind{expected};}}"));
    }
}

#[test]
fn snippets_and_files() {
    let mut memory = Memory::default();
    for (path, text) in [
        ("/etc/custom/a.override", "log"),
        ("/etc/custom/b.override", "# nothing\nimport ../more"),
        ("/etc/custom/../more", "loop"),
        ("/etc/x.server", "x {\n errors\n}"),
    ] {
        memory.files.insert(path, text.into());
    }
    for (text, expected) in [
        (
            "(s) {\n errors\n cache {args[0]} {\n  servfail {args.1}\n }\n}\n. {\n import s 30 0\n}",
            "<.>{errors;cache<30>{servfail<0>;};}",
        ),
        (". {\n import custom/*.override\n reload\n}\nimport *.server", "<.>{log;loop;reload;}<x>{errors;}"),
        ("import none/*.server\na {\n}", "<a>{}"),
        ("import x.server", "<x>{errors;}"),
    ] {
        assert_eq!(shape(&parsed_in(&memory, text)), expected, "{text}");
    }
}

#[test]
fn mistakes_have_their_line() {
    let mut memory = Memory::default();
    memory.files.insert("/etc/a", "import b".into());
    memory.files.insert("/etc/b", "import a".into());
    for (text, expected) in [
        ("}\n. {\n}", "Corefile:1 - Error during parsing: unexpected }"),
        (". {\n errors\n", "Corefile:1 - Error during parsing: this { is never closed"),
        (". {\n}\n{\n}", "Corefile:3 - Error during parsing: a server block without a zone"),
        ("a,", "Corefile:1 - Error during parsing: a zone is due"),
        (". {\n log \"x\n}", "Corefile:2 - Error during parsing: this quote is never"),
        ("\nimport none", "Corefile:2 - Error during parsing: there is neither"),
        ("import", "Corefile:1 - Error during parsing: import takes"),
        ("import **/x", "Corefile:1 - Error during parsing: `**/x` is not"),
        ("(s) {\n}\n(s) {\n}", "Corefile:3 - Error during parsing: snippet (s) is defined twice"),
        (
            "(s) {\n import s\n}\n. {\n import s\n}",
            "Corefile:2 - Error during parsing: this import leads back",
        ),
        ("import a", "/etc/b:1 - Error during parsing: this import leads back"),
    ] {
        let errors = errors_in(&memory, text);
        assert!(errors[0].starts_with(expected), "{text}: {errors:#?}");
    }
}

#[test]
fn growth_is_bounded() {
    let mut doubling = String::from("(s0) {\n x\n}\n");
    for level in 1..16 {
        let below = level - 1;
        doubling += &format!("(s{level}) {{\n{}}}\n", format!(" import s{below}\n").repeat(4));
    }
    let words = format!("{doubling}. {{\n import s15\n}}\n");
    let bytes = format!(
        "(a) {{\n x {}\n}}\n(b) {{\n{}}}\n. {{\n import b {}\n}}\n",
        "{args[0]}".repeat(1000),
        " import a {args[0]}\n".repeat(100),
        "y".repeat(100_000),
    );
    let depth: String =
        (0..100).map(|level| format!("(s{level}) {{\n import s{}\n}}\n", level + 1)).collect();
    let depth = format!("{depth}. {{\n import s0\n}}");
    let nesting = format!(". {{\n{}", "x {\n".repeat(1000));
    for (text, expected) in [
        (words, "words"),
        (bytes, "bytes"),
        (depth, "imports within imports"),
        (nesting, "braces within braces"),
    ] {
        let errors = errors_in(&Memory::default(), &text);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains(expected), "{errors:#?}");
    }
}

#[test]
fn rendered_trees_parse_to_themselves() {
    for text in [
        "a:53 b {\n cache {\n  success 1\n }\n log . \"{remote} x\\\"y\"\n forward . 1.1.1.1 { }\n}\nc {\n}",
        "\"(x)\" {\n \"import\" \"\" \"#\" \"{\" a,b\n}",
    ] {
        let corefile = parsed(text);
        assert_eq!(parsed(&render(&corefile)), corefile, "{text}");
    }
}
