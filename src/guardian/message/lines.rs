//! The lines of messages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use super::{CacheFile, Malformed};
use crate::sockets::{Listen, Role};

/// A message on its way to text.
pub struct Writer<'a> {
    text: String,
    files: Vec<BorrowedFd<'a>>,
}

impl<'a> Writer<'a> {
    /// A message with this verb.
    pub fn new(verb: &str) -> Writer<'a> {
        Writer { text: format!("{verb}\n"), files: Vec::new() }
    }

    /// Its text and its files.
    pub fn finish(self) -> (String, Vec<BorrowedFd<'a>>) {
        (self.text, self.files)
    }

    pub fn listen(&mut self, key: &str, listen: &Listen) {
        self.line(key, &show(listen));
    }

    pub fn line(&mut self, key: &str, value: &str) {
        // A value of several lines is so many lines of one key.
        for value in value.split('\n') {
            self.text.push_str(&format!("{key} {value}\n"));
        }
    }

    pub fn file(&mut self, key: &str, value: &str, file: &'a OwnedFd) {
        self.text.push_str(&format!("@{key} {}\n", value.replace('\n', " ")));
        self.files.push(file.as_fd());
    }

    pub fn sockets(&mut self, sockets: &'a [(Listen, OwnedFd)]) {
        sockets.iter().for_each(|(listen, file)| self.file("socket", &show(listen), file));
    }

    pub fn caches(&mut self, caches: &'a [CacheFile]) {
        caches.iter().for_each(|cache| self.file("cache", &cache.label, &cache.file));
    }
}

/// The lines of a message.
#[derive(Default)]
pub struct Fields {
    lines: Vec<(String, String)>,
    pub needed: Vec<Listen>,
    pub optional: Vec<Listen>,
    pub sockets: Vec<(Listen, OwnedFd)>,
    pub caches: Vec<CacheFile>,
    pub lease: Option<OwnedFd>,
    pub totals: Option<OwnedFd>,
}

impl Fields {
    pub fn read(text: &str, files: Vec<OwnedFd>) -> Result<Fields, Malformed> {
        let mut fields = Fields::default();
        let mut files = files.into_iter();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let Some(key) = key.strip_prefix('@') else {
                match key {
                    "needed" => fields.needed.push(parse_listen(value)?),
                    "optional" => fields.optional.push(parse_listen(value)?),
                    _ => fields.lines.push((key.to_owned(), value.to_owned())),
                }
                continue;
            };
            let file = files.next().ok_or_else(|| Malformed::new("a file is missing"))?;
            match key {
                "socket" => fields.sockets.push((parse_listen(value)?, file)),
                "cache" => fields.caches.push(CacheFile { label: value.to_owned(), file }),
                "lease" => fields.lease = Some(file),
                "totals" => fields.totals = Some(file),
                // Of another version; closed again.
                _ => drop(file),
            }
        }
        Ok(fields)
    }

    fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter(move |(there, _)| there == key).map(|(_, value)| value.as_str())
    }

    pub fn text(&self, key: &str) -> String {
        self.values(key).collect::<Vec<_>>().join("\n")
    }

    pub fn all<T: FromStr>(&self, key: &str) -> Result<Vec<T>, Malformed> {
        let parse = |value: &str| value.parse().map_err(|_| Malformed::new(format!("{key} {value}")));
        self.values(key).map(parse).collect()
    }

    pub fn one<T: FromStr>(&self, key: &str) -> Result<Option<T>, Malformed> {
        Ok(self.all(key)?.pop())
    }
}

fn show(listen: &Listen) -> String {
    let role = match listen.role {
        Role::DnsUdp => "dns-udp",
        Role::DnsTcp => "dns-tcp",
        Role::Http => "http",
    };
    format!("{role} {} {}", listen.address, listen.index)
}

fn parse_listen(text: &str) -> Result<Listen, Malformed> {
    let malformed = || Malformed::new(format!("socket {text}"));
    let words: Vec<&str> = text.split(' ').collect();
    let [role, address, index] = words[..] else { return Err(malformed()) };
    let role = match role {
        "dns-udp" => Role::DnsUdp,
        "dns-tcp" => Role::DnsTcp,
        "http" => Role::Http,
        _ => return Err(malformed()),
    };
    let address = address.parse().map_err(|_| malformed())?;
    Ok(Listen { role, address, index: index.parse().map_err(|_| malformed())? })
}
