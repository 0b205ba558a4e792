//! Flags, privileges and exit status of the program.

use std::process::{Command, Output};

use serde_json::Value;

pub const DOORSTEP: &str = env!("CARGO_BIN_EXE_doorstep");

fn run(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).output().expect("a program")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn a_wrong_flag_is_not_a_finding() {
    for words in [&["doctor", "-jsn"][..], &["doctor", "now"], &["doctor", "-interval", "soon"]] {
        let output = run(DOORSTEP, words);
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).contains("doctor -help"), "{words:?}");
    }
}

#[test]
fn help_tells_flags_and_status() {
    for help in ["-help", "--help", "-h"] {
        let output = run(DOORSTEP, &["doctor", help]);
        assert_eq!(output.status.code(), Some(0));
        let help = text(&output.stdout);
        for word in ["-json", "-interval", "-localip", "Status: 0"] {
            assert!(help.contains(word), "{help}");
        }
    }
    assert!(text(&run(DOORSTEP, &["-help"]).stdout).contains("\n  doctor "));
}

/// What was found does not depend on who reads it.
#[test]
fn standard_output_may_be_full_or_closed() {
    for (words, output, status, told) in [
        ("doctor -interval 0 -localip 192.0.2.9", "full", "0", "standard output: No space left"),
        ("doctor -interval 0 -localip 192.0.2.9", "closed", "0", ""),
        ("doctor -help", "full", "0", "standard output: No space left"),
        ("doctor -help", "closed", "0", ""),
        ("doctor -bogus 2>&1", "closed", "64", ""),
        ("demo -bogus 2>&1", "closed", "2", ""),
    ] {
        // The reader is gone before anything is written.
        let shell = match output {
            "full" => format!("{DOORSTEP} {words} >/dev/full; echo status $? >&2"),
            _ => format!("(sleep 0.1; {DOORSTEP} {words}; echo status $? >&3) 3>&2 | true"),
        };
        let errors = text(&run("unshare", &["--net", "sh", "-c", &shell]).stderr);
        assert!(
            errors.ends_with(&format!("status {status}\n")) && errors.contains(told),
            "{shell}: {errors}"
        );
        assert_eq!(errors.lines().count(), if told.is_empty() { 1 } else { 2 }, "{shell}: {errors}");
    }
}

#[test]
fn json_is_json_in_either_spelling() {
    for flags in [["-json", "-interval=0"], ["--json", "--interval=0s"], ["-json=true", "-interval=10ms"]] {
        let output = run(DOORSTEP, &[&["doctor"][..], &flags].concat());
        let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for finding in read["findings"].as_array().expect("an array") {
            for member in ["id", "severity", "evidence", "remedy", "meaning"] {
                assert!(finding[member].is_string(), "{finding}");
            }
        }
        assert!(read["kernel"].is_string() && read["could_not_read"].is_array());
    }
}

/// Nobody may see little, and is told so; nothing panics.
#[test]
fn without_root_it_names_what_it_could_not_read() {
    // Nobody cannot enter the directory that the program was built in.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("doorstep");
    std::fs::copy(DOORSTEP, &program).unwrap();
    let program = program.display();
    let shown = run("chmod", &["-R", "a+rx", &directory.path().display().to_string()]);
    assert!(shown.status.success());
    // The outer shell is a process in another network namespace, and the only one.
    let command = format!(
        "unshare --net setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \
         {program} doctor -json -interval 0; exit $?"
    );
    let output = run("unshare", &["--net", "--pid", "--fork", "--mount-proc", "sh", "-c", &command]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read["findings"][0]["id"], "could-not-read", "{read}");
    assert_eq!(read["findings"][0]["severity"], "note");
    let unread = read["could_not_read"].to_string();
    for what in ["nftables rules", "iptables rules", "pods: "] {
        assert!(unread.contains(what), "{what}: {unread}");
    }
}
