//! Flags and subcommands.

use std::process::Command;

use super::client::udp;
use super::loopback;
use super::message::ask;
use super::scripted::{Scripted, answer};
use super::server::{BINARY, Setup};

/// Exit status, standard output, standard error.
fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(words).output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn mistakes_in_the_command_line() {
    let switches = "-setupiptables";
    for (words, status, expected) in [
        (&["-frobnicate"][..], 2, "flag provided but not defined: -frobnicate"),
        (&["-localipp", "169.254.20.10"], 2, "did you mean -localip?"),
        (&["--setupebtables=true"], 2, "node-cache dropped it"),
        (&["-localip"], 2, "-localip"),
        (&["-dns.port", "http"], 2, "-dns.port"),
        (&["-health-port=70000"], 2, "-health-port"),
        (&["-setupinterface=perhaps"], 2, "-setupinterface"),
        (&["-syncinterval=soon"], 2, "-syncinterval"),
        (&["-localip", "169.254.20.10", "-interfacename", "nodelocaldns-ipv4"], 2, "at most 15 octets"),
        (&["-localip", "169.254.20.10", "serve"], 2, "unexpected `serve`"),
        (&[switches, "false"], 2, "write -setupiptables=false"),
        (&["-localip", "169.254.20.10, 10.0.0.10"], 64, "invalid localip specified"),
        (&["-localip", "169.254.20.300"], 64, "invalid localip specified - \"169.254.20.300\""),
        (&["-localip", "__PILLAR__LOCAL__DNS__"], 64, "placeholder was not replaced"),
        (&["-localip", "169.254.20.10,"], 64, "remove the comma"),
        (&[], 64, "-localip names no address"),
    ] {
        let (code, stdout, stderr) = run(words);
        assert_eq!(code, Some(status), "{words:?}: {stderr}");
        assert!(stderr.contains(expected), "{words:?}: {stderr}");
        assert_eq!(stdout, "", "{words:?}");
        if status == 2 {
            assert!(stderr.contains("-help"), "{words:?} says not where to read on: {stderr}");
        }
    }
}

#[test]
fn what_asks_for_a_word_gets_it() {
    let (code, stdout, _) = run(&["-help"]);
    assert_eq!(code, Some(0));
    for flag in ["-localip", "-conf", "-upstreamsvc", "-skipteardown", "-pidfile", "-dns.port"] {
        assert!(stdout.contains(flag), "{flag}");
    }
    let (code, stdout, _) = run(&["-version"]);
    assert_eq!((code, stdout.trim()), (Some(0), concat!("doorstep-", env!("CARGO_PKG_VERSION"))));
    let (code, stdout, _) = run(&["-plugins"]);
    assert_eq!(code, Some(0));
    assert!(stdout.lines().any(|line| line == "forward"), "{stdout}");
}

#[test]
fn every_spelling_of_a_flag_is_understood() {
    let upstream = Scripted::start(answer);
    for (number, spelling) in
        ["-dns.port 5333", "-dns.port=5333", "--dns.port 5333", "--dns.port=5333"].into_iter().enumerate()
    {
        let ip = loopback::fresh();
        let mut setup = Setup::new(ip, &super::block(".", ip, upstream.address, ""));
        for word in spelling.split(' ') {
            setup = setup.flag(word);
        }
        let _server = setup.flag("-quiet").start();
        assert_eq!(udp((ip, 5333).into(), &ask(&format!("n{number}.test"))).rcode(), 0, "{spelling}");
    }
}

/// node-cache starts as well, and listens on a port that nobody knows.
#[test]
fn without_an_address_there_are_no_metrics_of_its_own() {
    let upstream = Scripted::start(answer);
    let address = loopback::fresh_dns();
    let setup = Setup::new(address.ip(), &super::block(".", address.ip(), upstream.address, ""));
    let server = setup.flag("-metrics-listen-address=").start();
    assert_eq!(udp(address, &ask("a.test")).rcode(), 0);
    assert!(std::net::TcpStream::connect(server.metrics()).is_err());
}
