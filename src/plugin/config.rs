//! Settings of the steps.

use std::path::PathBuf;
use std::time::Duration;

pub use super::dns64::{Dns64, Prefix};
pub use super::rewrite::{Action, AnswerPart, AnswerRule, Matcher, OptionEdit, Rule};
use crate::wire::Name;

pub use super::template::{ExpressionError, RecordError, RecordText, RecordTextError, SUPPORTED};

/// What a block does between its cache and its upstreams.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `dns64`.
    pub dns64: Option<Dns64>,
    /// `rewrite` directives in order.
    pub rewrites: Vec<Rule>,
    /// `template` directives in order.
    pub templates: Vec<Template>,
    /// `hosts`.
    pub hosts: Option<Hosts>,
}

impl Config {
    /// Directives that name no zones are about those of their block.
    pub fn fill_in_zones(&mut self, zones: &[Name]) {
        let templates = self.templates.iter_mut().map(|template| &mut template.zones);
        let hosts = self.hosts.iter_mut().map(|hosts| &mut hosts.zones);
        templates.chain(hosts).filter(|own| own.is_empty()).for_each(|own| own.extend_from_slice(zones));
    }

    /// A text that differs when what is answered may; empty when nothing is answered here.
    pub fn fingerprint(&self) -> String {
        let says = |config: &Config| format!("{config:?}");
        if says(self) == says(&Config::default()) { String::new() } else { says(self) }
    }
}

/// `template CLASS TYPE [ZONE...] { ... }`: replies made here.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// Of the question; `None`: any.
    pub class: Option<u16>,
    /// Of the question; `None`: any.
    pub qtype: Option<u16>,
    /// Only names below these are concerned.
    pub zones: Vec<Name>,
    /// One must match the name, in lower case with its final dot.
    pub patterns: Vec<regex::Regex>,
    /// The response code, 0 to 15.
    pub rcode: u16,
    /// Why the answer is what it is (RFC 8914 §4), for those who send an OPT.
    pub extended_error: Option<u16>,
    /// Records of the answer section.
    pub answers: Vec<RecordText>,
    /// Records of the authority section.
    pub authorities: Vec<RecordText>,
    /// Records of the additional section.
    pub additionals: Vec<RecordText>,
    /// Below these, a name that no pattern matches is left to what comes after; others get SERVFAIL.
    pub fallthrough: Vec<Name>,
}

/// `hosts [FILE [ZONE...]] { ... }`.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// The file.
    pub path: PathBuf,
    /// Only names below these are concerned, and pointers to them.
    pub zones: Vec<Name>,
    /// Lines that stand in the Corefile, behind those of the file.
    pub inline: Vec<String>,
    /// Of every record, seconds.
    pub ttl: u32,
    /// Whether addresses have pointers.
    pub reverse: bool,
    /// How often to look for another version of the file; zero: never.
    pub reload: Duration,
    /// Below these, a name that is not here is left to what comes after; others get SERVFAIL.
    pub fallthrough: Vec<Name>,
}

impl Hosts {
    /// Whether a line that begins with `word` can be an entry.
    pub fn is_address(word: &str) -> bool {
        super::hosts::address(word).is_some()
    }
}

impl Default for Hosts {
    /// CoreDNS's.
    fn default() -> Hosts {
        Hosts {
            path: "/etc/hosts".into(),
            zones: Vec::new(),
            inline: Vec::new(),
            ttl: 3600,
            reverse: true,
            reload: Duration::from_secs(5),
            fallthrough: Vec::new(),
        }
    }
}
