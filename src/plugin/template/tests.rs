use regex::Regex;

use super::expression::{Expression, ExpressionError, Facts};
use super::{RecordText, RecordTextError};

const NAME: &str = "ip-10-0-0-1.pod.test.";

fn pattern() -> Regex {
    Regex::new(r"^ip-(?P<a>\d+)-(\d+)-(\d+)-(?P<d>[0-9a-f]+)(-x)?\.(?P<rest>.*)$").unwrap()
}

fn facts<'a>(pattern: &'a Regex, name: &'a str) -> Facts<'a> {
    let captures = pattern.captures(name).unwrap();
    Facts {
        name,
        question: "IP-10-0-0-1.pod.test.",
        qtype: 1,
        qclass: 1,
        zone: "test.".into(),
        class: "IN".into(),
        type_name: "A".into(),
        pattern,
        groups: captures.iter().map(|group| group.map_or("", |group| group.as_str())).collect(),
    }
}

#[track_caller]
fn value(expression: &str) -> Result<String, String> {
    let pattern = pattern();
    let mut out = String::new();
    let parsed = Expression::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    parsed.write(&facts(&pattern, NAME), &mut out).map(|()| out)
}

#[test]
fn values_of_a_query() {
    for (expression, expected) in [
        (".Name", NAME),
        (" .Zone ", "test."),
        (".Class", "IN"),
        (".Type", "A"),
        (".Question.Name", "IP-10-0-0-1.pod.test."),
        (".Question.Qtype", "1"),
        ("index .Match 1", "10"),
        ("index .Match 5", ""),
        ("(index .Match 4)", "1"),
        (".Group.rest", "pod.test."),
        (".Group.nobody", "<no value>"),
        ("index .Group \"a\"", "10"),
        ("index .Group `2`", "0"),
        (".Match", "[ip-10-0-0-1.pod.test. 10 0 0 1  pod.test.]"),
        ("parseInt .Group.a 16 8", "16"),
        ("parseInt (index .Match 1) 10 0", "10"),
        ("parseInt \"ff\" 16 8", "255"),
        ("\"as it is\"", "as it is"),
    ] {
        assert_eq!(value(expression), Ok(expected.to_owned()), "{expression}");
    }
    for expression in
        ["index .Match 7", "parseInt .Group.rest 10 8", "parseInt \"256\" 10 8", "parseInt \"+1\" 10 8"]
    {
        assert!(value(expression).is_err(), "{expression}");
    }
}

#[test]
fn the_rest_of_gos_language_is_refused() {
    for text in [
        "",
        " ",
        ".",
        ".Nam",
        "if .Name",
        "range .Match",
        "$x := .Name",
        ".Name | printf",
        "printf \"%s\" .Name",
        "index .Match",
        "index .Match -1",
        "index .Match 1 2",
        "index .Name 1",
        ".Group.0",
        ".Group",
        "end",
        "parseInt .Name",
        "parseInt .Name 1 8",
        "parseInt .Name 10 65",
        "(.Name",
        "\"open",
        "/* said */",
        ".Meta \"x\"",
        ".Name .Zone",
        ".Match.0",
    ] {
        assert_eq!(Expression::parse(text), Err(ExpressionError::NotServed(text.trim().into())), "{text}");
    }
    for text in [".Remote", "index .Group .Remote", ".Message.Id"] {
        assert_eq!(Expression::parse(text), Err(ExpressionError::PerClient(text.into())), "{text}");
    }
}

#[track_caller]
fn filled(text: &str) -> Result<Vec<u8>, String> {
    let pattern = pattern();
    let parsed = RecordText::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    parsed.fill(&facts(&pattern, NAME)).map_err(|(_, error)| error)
}

#[test]
fn a_text_is_filled_in() {
    let expected = super::record::record("ip-10-0-0-1.pod.test. 60 IN A 10.0.0.1");
    for text in [
        "{{ .Name }} 60 IN A 10.0.0.{{ .Group.d }}",
        "{{.Name}} 60 IN {{.Type}} {{.Group.a}}.{{index .Match 2}}.0.1",
        "ip-10-0-0-1.pod.test. 60 IN A 10.0.0.1",
        "{{ .Name }} 60 IN A 10.0. {{- \"0.\" -}} {{- parseInt .Group.d 16 8 }}",
    ] {
        assert_eq!(filled(text).ok(), expected.clone().ok(), "{text}");
    }
    assert_eq!(filled("a. 60 IN A 10. {{- \"0.\" -}} 0.1"), filled("a. 60 IN A 10.0.0.1"));
    assert_eq!(filled("a. 60 IN TXT \"{{ `}}` }}\""), filled("a. 60 IN TXT \"}}\""));
    assert!(filled("{{ .Name }} 60 IN A {{ .Zone }}").is_err());
    assert!(filled("{{ .Name }} 60 IN A {{ index .Match 9 }}").is_err());
}

/// What a client may put into a name must not become another record, nor another word of one.
#[test]
fn names_of_clients_stay_names() {
    let pattern = Regex::new(".*").unwrap();
    for name in
        ["\\$include./etc/passwd.", "a\\;b.test.", "a\\\"b.test.", "a\\032b.test.", "\\@.", "\\010x.", "."]
    {
        let text = RecordText::parse("{{ .Name }} 60 IN A 192.0.2.1").unwrap();
        let wire = text.fill(&facts(&pattern, name)).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(wire[wire.len() - 10..], [0, 0, 0, 60, 0, 4, 192, 0, 2, 1], "{name}");
    }
}

#[test]
fn mistakes_are_found_when_loading() {
    let error = |text: &str| RecordText::parse(text).err();
    assert_eq!(error("{{ .Name 60 IN A 1.2.3.4"), Some(ExpressionError::Unclosed.into()));
    assert!(matches!(error("a. 60 IN A 1.2.3"), Some(RecordTextError::Record(_))));
    assert!(matches!(error(""), Some(RecordTextError::Record(_))));
    assert!(matches!(error("{{ .Name }} IN HTTPS 1 . alpn=h2"), Some(RecordTextError::Record(_))));
    assert_eq!(error("{{ .Name }} IN {{ .Type }} {{ .Name }}"), None);
}

#[test]
fn groups_that_no_pattern_has_are_found() {
    let patterns = [pattern(), Regex::new("(?P<other>.*)").unwrap()];
    let unknown = |text: &str| RecordText::parse(text).unwrap().unknown_to(&patterns);
    assert_eq!(unknown("{{ .Name }} A {{ index .Match 6 }}{{ .Group.other }}"), None);
    assert_eq!(unknown("{{ .Name }} A {{ index .Match 7 }}"), Some("index .Match 7".into()));
    assert_eq!(unknown("{{ parseInt .Group.nobody 16 8 }}"), Some("parseInt .Group.nobody 16 8".into()));
}

#[test]
fn parentheses_are_not_followed_for_ever() {
    for deep in ["(".repeat(200_000), "parseInt (".repeat(200_000)] {
        assert!(matches!(Expression::parse(&deep), Err(ExpressionError::NotServed(_))));
    }
    assert_eq!(value("((parseInt ((.Group.a)) 10 8))"), Ok("10".into()));
}
