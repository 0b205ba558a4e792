use super::*;

fn run(line: &str) -> Result<Command, CliError> {
    let words = line.split_whitespace().map(OsString::from);
    parse(std::iter::once(OsString::from("doorstep")).chain(words))
}

fn args(line: &str) -> Args {
    match run(line) {
        Ok(Command::Serve(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

fn fails(line: &str, exit_code: i32, text: &str) {
    let error = run(line).unwrap_err();
    assert_eq!(error.exit_code, exit_code, "{line}: {error}");
    assert!(error.message.contains(text), "{line}: {error}");
}

#[test]
fn the_stock_manifest() {
    let args = args(
        "-localip 169.254.20.10,10.96.0.10 -conf /etc/Corefile \
         -upstreamsvc kube-dns-upstream -pidfile /tmp/node-cache.pid",
    );
    assert_eq!(
        args,
        Args {
            local_ips: vec!["169.254.20.10".parse().unwrap(), "10.96.0.10".parse().unwrap()],
            setup_interface: true,
            interface: "nodelocaldns".into(),
            sync_interval: Duration::from_secs(60),
            metrics_addresses: vec!["0.0.0.0:9353".parse().unwrap()],
            setup_rules: true,
            rules_backend: None,
            base_corefile: "/etc/coredns/Corefile.base".into(),
            conf: Some("/etc/Corefile".into()),
            kube_dns: "/etc/kube-dns".into(),
            upstream_service: "kube-dns-upstream".into(),
            health_port: None,
            skip_teardown: false,
            reload_with_signal: false,
            pid_file: Some("/tmp/node-cache.pid".into()),
            handover: Some("/run/doorstep".into()),
            dns_port: 53,
            quiet: false,
            prometheus: ":9253".into(),
            warnings: Vec::new(),
        }
    );
}

#[test]
fn every_spelling() {
    for line in [
        "-localip 1.1.1.1 -dns.port 54 -setupiptables=false",
        "-localip=1.1.1.1 -dns.port=54 -setupiptables=F",
        "--localip 1.1.1.1 --dns.port 54 --setupiptables=0",
        "--localip=1.1.1.1 -p=54 --setupiptables=false",
        "-p 55 -localip ::1 -localip 1.1.1.1 -setupiptables=false -p 54",
    ] {
        let args = args(line);
        assert_eq!(args.local_ips, ["1.1.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(args.dns_port, 54, "{line}");
        assert!(!args.setup_rules, "{line}");
        assert!(args.setup_interface, "{line}");
    }
    assert!(args("-localip ::1 -skipteardown").skip_teardown);
    assert_eq!(args("-localip ::1,1.1.1.1,::1").local_ips.len(), 2);
}

#[test]
fn what_is_refused() {
    fails("-setupebtables=true", 2, "flag provided but not defined: -setupebtables");
    fails("-locaip 1.1.1.1", 2, "did you mean -localip?");
    fails("-localip 1.1.1.1 -setupiptables false", 2, "-setupiptables=false");
    fails("-localip 1.1.1.1 serve", 2, "unexpected `serve`");
    fails("---localip 1.1.1.1", 2, "bad flag syntax");
    fails("-localip", 2, "flag needs an argument: -localip");
    fails("-localip ::1 -setupinterface=maybe", 2, "true or false");
    fails("-localip ::1 -dns.port x", 2, "dns.port");
    fails("-localip ::1 -rules-backend ebtables", 2, "nftables");
    fails("-localip ::1 -syncinterval 10ms", 2, "at least 1s");
    fails("", 64, "-localip");
    fails("-localip 169.254.20.10,", 64, "remove the comma");
    fails("-localip 169.254.20", 64, "invalid localip specified - \"169.254.20\"");
    fails("-localip __PILLAR__LOCAL__DNS__", 64, "placeholder");
    fails("-localip ::1 -interfacename nodelocaldns0123", 2, "at most 15 octets");
    fails("check a b", 2, "check does not take `b`");
    fails("teardown now", 2, "teardown does not take");
}

#[test]
fn sync_interval_as_it_is_meant() {
    for (text, seconds, warns) in
        [("60s", 60, false), ("1m", 60, false), ("1ns", 1, true), ("60", 60, true), ("90s", 90, false)]
    {
        let args = args(&format!("-localip ::1 -syncinterval {text}"));
        assert_eq!(args.sync_interval, Duration::from_secs(seconds), "{text}");
        assert_eq!(!args.warnings.is_empty(), warns, "{text}");
    }
}

#[test]
fn subcommands() {
    assert_eq!(run("-version"), Ok(Command::Version));
    assert_eq!(run("-plugins"), Ok(Command::Plugins));
    assert!(matches!(run("teardown -localip ::1"), Ok(Command::Teardown(_))));
    assert!(matches!(run("check"), Ok(Command::Check { corefile: None, .. })));
    let Ok(Command::Check { args, corefile }) = run("-localip ::1 check -p 54 My.Corefile") else {
        panic!("check");
    };
    assert_eq!((args.dns_port, corefile), (54, Some("My.Corefile".into())));
}

#[test]
fn doctor_has_flags_of_its_own() {
    let options = |line: &str| match run(line) {
        Ok(Command::Doctor(options)) => options,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(options("doctor"), crate::doctor::Options::default());
    let all = options("-localip ::1 doctor --json -interval=500ms --interfacename x -p 54 -health-port 81");
    assert_eq!(
        all,
        crate::doctor::Options {
            json: true,
            interval: Duration::from_millis(500),
            local_ips: vec!["::1".parse().unwrap()],
            interface: Some("x".into()),
            dns_port: Some(54),
            health_port: Some(81),
        }
    );
    assert!(options("doctor -interval 0").interval.is_zero());
    for line in ["-jsn", "-interval x", "-interval 2h", "-json true", "here", "-localip 1.1", "-conf x"] {
        fails(&format!("doctor {line}"), EXIT_CONFIG, "");
    }
    fails("doctor -help", 0, "-interval");
}

#[test]
fn help_names_every_flag_once() {
    let error = run("-help").unwrap_err();
    assert_eq!(error.exit_code, 0);
    for flag in go::known(&flags::Flags::command()) {
        if flag.name != "p" {
            let named = format!("  -{} ", flag.name);
            assert_eq!(error.message.matches(&named).count(), 1, "{named}\n{error}");
        }
    }
}

#[test]
fn flags_without_effect_warn() {
    assert_eq!(args("-localip ::1 -corefile x").warnings.len(), 1);
}

/// The kernel refuses these (`dev_valid_name`), or takes `%d` for a number of its choice.
#[test]
fn names_that_no_interface_can_have() {
    for name in ["nodelocaldns0123", "äöüäöüäö", "a/b", "a:b", "a%d", ".", ".."] {
        fails(&format!("-localip ::1 -interfacename {name}"), 2, "-interfacename");
        fails(&format!("-localip ::1 -interfacename {name} teardown"), 2, "-interfacename");
        // Nothing is made by that name then, and node-cache starts as well.
        assert_eq!(
            args(&format!("-localip ::1 -interfacename {name} -setupinterface=false")).interface,
            name
        );
    }
    fails("-localip ::1 -interfacename=", 2, "-interfacename");
    assert_eq!(args("-localip ::1 -interfacename nodelocaldns012").interface.len(), 15);
}

#[test]
fn the_health_port_of_the_rules() {
    assert_eq!(args("-localip ::1").node().health_port, 8080);
    assert_eq!(args("-localip ::1 -health-port 3989").node().health_port, 3989);
}

#[test]
fn hand_over_and_own_metrics_can_be_turned_off() {
    assert_eq!(args("-localip ::1 -metrics-listen-address=").metrics_addresses, []);
    assert_eq!(args("-localip ::1 -handover=").handover, None);
    assert_eq!(args("-localip ::1 -handover /x").handover, Some("/x".into()));
}

#[cfg(feature = "demo")]
#[test]
fn the_laboratory_and_its_races() {
    let lab = |line| match run(line) {
        Ok(Command::Demo(Demo::Lab { hold, json, pairs, direct_pairs })) => (hold, json, pairs, direct_pairs),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(lab("demo"), (false, false, 1000, None));
    assert_eq!(lab("demo -hold --json -pairs=7 --direct-pairs 3"), (true, true, 7, Some(3)));
    let line = "demo race 10.96.0.10 --pod a --second-pod /run/netns/b --pace 5 -name x-#.test -json";
    let Ok(Command::Demo(Demo::Race { race, json: true })) = run(line) else { panic!("{line}") };
    assert_eq!((race.server.to_string().as_str(), race.pairs), ("10.96.0.10:53", 300));
    assert_eq!((race.pod.as_deref(), race.second_pod.as_deref()), (Some("a"), Some("/run/netns/b")));
    assert_eq!((race.name.as_str(), race.pace), ("x-#.test", Duration::from_millis(5)));
    for line in ["demo --pair 3", "demo --pairs x", "demo now", "demo race", "demo race x"] {
        fails(line, EXIT_USAGE, "Usage: doorstep demo");
    }
    fails("demo --help", 0, "--hold");
}
