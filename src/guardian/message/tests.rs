use super::*;
use crate::sockets::Role;

fn there_and_back(message: &Message) -> Message {
    let (text, files) = message.encode();
    let files = files.iter().map(|file| file.try_clone_to_owned().unwrap()).collect();
    Message::decode(&text, files).unwrap()
}

fn file() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn messages_come_back_as_they_were() {
    let listen = |role, index| Listen { role, address: "[fd00::10]:53".parse().unwrap(), index };
    let standing = Standing {
        health_port: Some(8080),
        lameduck: Duration::from_secs(5),
        relays: vec!["10.0.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()],
        unrelayed: vec!["169.254.20.10:53".parse().unwrap()],
        caches: vec![CacheFile { label: "cluster.local.,. 1 2".to_owned(), file: file() }],
    };
    let messages = [
        Message::Want { needed: vec![listen(Role::DnsUdp, 3)], optional: vec![listen(Role::Http, 0)] },
        Message::Standing(standing),
        Message::Sockets {
            sockets: vec![(listen(Role::DnsTcp, 0), file())],
            beside: true,
            caches: Vec::new(),
        },
        Message::Refused("two\nlines".to_owned()),
        Message::Counts(vec![Count { what: "drift".to_owned(), label: "a b".to_owned(), total: 7 }]),
        Message::Ask {
            version: "1.2.3".to_owned(),
            identity: "pod".to_owned(),
            namespace: 4_026_531_840,
            listens: vec![listen(Role::DnsUdp, 0)],
        },
        Message::Offer {
            version: "1.2.3".to_owned(),
            identity: "pod".to_owned(),
            sockets: vec![(listen(Role::DnsUdp, 1), file())],
            lease: Some(file()),
            caches: Vec::new(),
        },
        Message::Serve { lease: Some(file()) },
        Message::Taken,
    ];
    for message in messages {
        assert_eq!(without_files(&there_and_back(&message)), without_files(&message));
    }
}

/// As text, without the numbers of files, which change on the way.
fn without_files(message: &Message) -> String {
    let text = format!("{message:?}");
    let parts = text.split("fd: ").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    parts.collect()
}

#[test]
fn keys_of_another_version_are_passed_by() {
    let text = "offer\nversion 9.0.0\ncolour blue\n@flag of another time\n@lease \n";
    let message = Message::decode(text, vec![file(), file()]).unwrap();
    assert!(matches!(message, Message::Offer { lease: Some(_), .. }), "{message:?}");
}

#[test]
fn what_is_no_message_is_an_error() {
    for text in ["", "offer", "colour\n", "want\nneeded dns-udp nowhere 0\n", "offer\n@lease \n"] {
        assert!(Message::decode(text, Vec::new()).is_err(), "{text:?}");
    }
}
