//! Settings of the steps.

use std::net::IpAddr;

pub use super::dns64::{Dns64, Prefix};
pub use super::rewrite::{Action, AnswerPart, AnswerRule, Matcher, OptionEdit, Rule};
use crate::wire::Name;

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

/// `template CLASS TYPE [ZONE...] { ... }`: replies without records.
#[derive(Debug, Clone)]
pub struct Template {
    /// Of the question; `None`: any.
    pub class: Option<u16>,
    /// Of the question; `None`: any.
    pub qtype: Option<u16>,
    /// Only names below these are concerned; empty: every name of the block.
    pub zones: Vec<Name>,
    /// One must match the name, in lower case with its final dot; empty: every name will do.
    pub patterns: Vec<regex::Regex>,
    /// The response code, 0 to 15.
    pub rcode: u16,
    /// Below these, a name that no pattern matches is left to what comes after; others get SERVFAIL.
    pub fallthrough: Vec<Name>,
}

impl Default for Template {
    /// NOERROR for everything.
    fn default() -> Template {
        let (zones, patterns, fallthrough) = (Vec::new(), Vec::new(), Vec::new());
        Template { class: None, qtype: None, zones, patterns, rcode: 0, fallthrough }
    }
}

/// `hosts [FILE [ZONE...]] { ... }`: what the file and the Corefile list, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Only names below these are concerned; empty: every name of the block.
    pub zones: Vec<Name>,
    /// Addresses and their names.
    pub entries: Vec<(IpAddr, Name)>,
    /// Seconds.
    pub ttl: u32,
    /// PTR queries are answered as well.
    pub reverse: bool,
    /// Below these, an unknown name is left to the upstream; others get SERVFAIL.
    pub fallthrough: Vec<Name>,
}

impl Default for Hosts {
    /// An empty table.
    fn default() -> Hosts {
        let (zones, entries, fallthrough) = (Vec::new(), Vec::new(), Vec::new());
        Hosts { zones, entries, ttl: 3600, reverse: true, fallthrough }
    }
}
