//! What clients see of the cache over time: one behaviour per file in `tests/scenarios`.
//!
//! A scenario that would also hold without the behaviour shows nothing. So each names a control, the
//! same text with the behaviour switched off, and the control must fail.

#[path = "scenarios/message.rs"]
mod message;
#[path = "scenarios/node.rs"]
mod node;
#[path = "scenarios/script.rs"]
mod script;

use std::fs;
use std::path::Path;

/// Runs a scenario and its control; gives back how the control failed.
fn hold(text: &str) -> Result<String, String> {
    let (scenario, control) = script::parse(text)?;
    node::run(&scenario)?;
    match node::run(&control) {
        Ok(()) => Err("the control holds as well: the scenario shows nothing".into()),
        // A control that does not even start shows nothing either.
        Err(failure) if !failure.starts_with("line ") => Err(format!("control: {failure}")),
        Err(failure) => Ok(failure),
    }
}

#[test]
fn every_scenario_holds_and_no_control_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match hold(&fs::read_to_string(&path).unwrap()) {
            Ok(control) => println!("{name}: holds; its control fails at {control}"),
            Err(failure) => failures.push(format!("{name}: {failure}")),
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// A scenario of the runner's own, with these lines instead of the last.
fn sample(last: &str) -> String {
    format!(
        "A second query is a hit.\n\ncontrol cache => #\ncorefile\n  cache\n\n\
         upstream a.test A => NOERROR; @ 60 A 192.0.2.1\n\
         ask a.test A => miss, NOERROR, ttl 60, data 192.0.2.1\n{last}\n"
    )
}

#[test]
fn the_sample_holds() {
    assert_eq!(hold(&sample("ask a.test A => hit")).unwrap(), "line 9: a miss");
}

#[test]
fn a_control_that_holds_is_a_failure() {
    let failure = hold(&sample("ask a.test A => NOERROR")).unwrap_err();
    assert!(failure.contains("the control holds as well"), "{failure}");
}

#[test]
fn a_scenario_needs_a_sentence_and_a_control() {
    let text = sample("ask a.test A => hit");
    assert!(hold(&text.replace("hit.\n", "hit\n")).unwrap_err().contains("no sentence"));
    assert!(hold(&text.replace("control cache => #", "")).unwrap_err().contains("no control"));
    assert!(hold(&text.replace("control cache", "control keepttl")).unwrap_err().contains("not there"));
}

#[test]
fn a_control_must_start() {
    let failure = hold(&sample("ask a.test A => hit").replace("cache => #", "cache => casche")).unwrap_err();
    assert!(failure.starts_with("control: corefile"), "{failure}");
}

#[test]
fn every_expectation_can_fail() {
    for wrong in [
        "hit, NXDOMAIN",
        "hit, ttl 59",
        "hit, no aa",
        "hit, ad",
        "hit, tc",
        "hit, answers 2",
        "hit, records 0",
        "hit, data 192.0.2.2",
        "miss",
        "pending",
    ] {
        let failure = hold(&sample(&format!("ask a.test A => {wrong}"))).unwrap_err();
        assert!(failure.starts_with("line 9: "), "{wrong}: {failure}");
    }
    for wrong in ["asked 2", "entries success 0", "entries denial 1", "reply x => hit"] {
        assert!(hold(&sample(wrong)).unwrap_err().starts_with("line 9: "), "{wrong}");
    }
    assert!(hold(&sample("ask b.test A => NOERROR")).is_err(), "a question the upstream does not know");
    let unanswered = sample("upstream b.test A takes 5s => fails\nask b.test A as b => pending");
    assert!(hold(&unanswered).unwrap_err().contains("nobody looked"));
}

#[test]
fn what_is_no_step_is_refused() {
    for wrong in [
        "ask a.test A",
        "ask a.test A => good",
        "ask a.test A twice => hit",
        "ask a.test X => hit",
        "upstream a.test A => NOERROR; @ 60 A",
        "upstream a.test A soon => NOERROR",
        "wait 3",
        "wait => hit",
        "dance",
    ] {
        assert!(hold(&sample(wrong)).unwrap_err().starts_with("line 9: "), "{wrong}");
    }
}
