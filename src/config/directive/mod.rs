//! What each directive means: one function each, from its words to a Config.

mod arguments;
mod bind;
mod cache;
mod dns64;
mod errors;
mod forward;
mod hosts;
mod listeners;
mod loadbalance;
mod log;
mod process;
mod rewrite;
mod switches;
mod template;
mod upstream;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Options;
use super::corefile::{Block, Directive, Span};
use super::environment::Environment;
use super::error::{Diagnostic, Diagnostics};
use super::nearest::nearest;
use crate::wire::Name;
use crate::{admin, cache as cache_config, forward as forward_config, plugin, server};

/// What the directives of one block add up to.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// `bind` and the place of the first; `None`: every address.
    pub bind: Option<(Vec<IpAddr>, Span)>,
    /// `bind`'s `except`.
    pub except: Vec<IpAddr>,
    pub cache: Option<cache_config::Config>,
    pub forwards: Vec<forward_config::Config>,
    pub errors: Option<server::ErrorsLog>,
    pub log: Vec<server::QueryLog>,
    pub loadbalance: Option<server::LoadBalance>,
    pub steps: plugin::Config,
    pub whoami: bool,
    pub detect_loops: bool,
    pub search_ahead: Option<Vec<Name>>,
    pub metrics: bool,
    pub bufsize: Option<u16>,
    /// Names of the served directives.
    pub plugins: BTreeSet<&'static str>,
}

/// What directives of any block say about the process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub admin: admin::Config,
    pub reload: Option<super::Reload>,
    pub debug: bool,
    pub timeouts: server::Timeouts,
    /// `multisocket`.
    pub udp_threads: Option<usize>,
}

/// What a directive's function reads and fills.
pub(super) struct Scope<'a> {
    pub env: &'a dyn Environment,
    pub options: &'a Options,
    pub diagnostics: &'a mut Diagnostics,
    pub block: Draft,
    pub process: &'a mut Process,
}

impl Scope<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.diagnostics.error(Diagnostic::at(span, message).remedy(remedy));
    }

    fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.diagnostics.warn(Diagnostic::at(span, message));
    }
}

/// How Doorstep takes a directive that CoreDNS knows.
enum Support {
    /// Served; at most once per block.
    Once(fn(&Directive, &mut Scope<'_>)),
    /// Served; any number of times.
    Many(fn(&Directive, &mut Scope<'_>)),
    /// Accepted without effect; the text says what is missing.
    Ignored(&'static str),
    /// Refused; the text is the remedy.
    NotServed(&'static str),
}

use Support::{Ignored, Many, NotServed, Once};

const REMOVE: &str = "remove it, or keep this zone on node-cache";
const ELSEWHERE: &str = "remove it here and configure it in the cluster's CoreDNS";

/// Every directive there is something to say about.
static TABLE: &[(&str, Support)] = &[
    ("bind", Many(bind::bind)),
    ("bufsize", Once(switches::bufsize)),
    ("cache", Once(cache::cache)),
    ("debug", Many(process::debug)),
    ("dns64", Once(dns64::dns64)),
    ("errors", Once(errors::errors)),
    ("forward", Many(forward::forward)),
    ("health", Many(listeners::health)),
    ("hosts", Once(hosts::hosts)),
    ("loadbalance", Many(loadbalance::loadbalance)),
    ("log", Many(log::log)),
    ("loop", Once(switches::detect_loops)),
    ("multisocket", Once(process::multisocket)),
    ("prometheus", Once(listeners::prometheus)),
    ("ready", Once(listeners::ready)),
    ("reload", Once(process::reload)),
    ("rewrite", Many(rewrite::rewrite)),
    ("search_ahead", Once(switches::search_ahead)),
    ("template", Many(template::template)),
    ("timeouts", Once(process::timeouts)),
    ("whoami", Once(switches::whoami)),
    ("any", Ignored("queries of type ANY are answered in full")),
    ("cancel", Ignored("queries are ended by their own deadlines")),
    ("chaos", Ignored("version.bind queries are not answered")),
    ("dnstap", Ignored("messages are not copied to anybody")),
    ("local", Ignored("names below localhost are forwarded")),
    ("metadata", Ignored("`log` knows no labels of plugins")),
    ("minimal", Ignored("answers keep their authority and additional sections")),
    ("nsid", Ignored("no server identifier is sent")),
    ("pprof", Ignored("it profiles the Go process")),
    ("trace", Ignored("no spans are reported")),
    ("acl", NotServed("an access list must not be dropped silently: use a NetworkPolicy")),
    ("auto", NotServed(ELSEWHERE)),
    ("autopath", NotServed(ELSEWHERE)),
    ("dnssec", NotServed(ELSEWHERE)),
    ("etcd", NotServed(ELSEWHERE)),
    ("file", NotServed(ELSEWHERE)),
    ("grpc", NotServed(ELSEWHERE)),
    ("header", NotServed(ELSEWHERE)),
    ("k8s_external", NotServed(ELSEWHERE)),
    ("kubernetes", NotServed(ELSEWHERE)),
    ("root", NotServed(REMOVE)),
    ("secondary", NotServed(ELSEWHERE)),
    ("shed", NotServed("remove it; load is shed by built-in limits")),
    ("sign", NotServed(ELSEWHERE)),
    ("tls", NotServed("remove it; only plain DNS is served to clients")),
    ("transfer", NotServed(ELSEWHERE)),
    ("tsig", NotServed(ELSEWHERE)),
    ("view", NotServed(ELSEWHERE)),
];

/// Names of the directives this version serves, sorted.
pub fn served() -> Vec<&'static str> {
    let mut names: Vec<&str> = TABLE
        .iter()
        .filter(|(_, support)| matches!(support, Once(_) | Many(_)))
        .map(|(name, _)| *name)
        .collect();
    names.sort_unstable();
    names
}

/// Applies every directive of `block` to `scope`.
pub(super) fn apply(block: &Block, scope: &mut Scope<'_>) {
    for (index, directive) in block.directives.iter().enumerate() {
        let name = directive.name.text.as_str();
        let span = directive.name.span;
        match TABLE.iter().find(|(known, _)| *known == name) {
            Some((known, Once(function))) => {
                let earlier = block.directives[..index].iter().find(|d| d.name.text == name);
                if let Some(earlier) = earlier {
                    repeated(directive, earlier.name.span, scope);
                    continue;
                }
                scope.block.plugins.insert(known);
                function(directive, scope);
            }
            Some((known, Many(function))) => {
                scope.block.plugins.insert(known);
                function(directive, scope);
            }
            Some((known, Ignored(effect))) => {
                scope.warn(span, format!("`{known}` is accepted but has no effect: {effect}"));
            }
            Some((known, NotServed(remedy))) => {
                let message = format!("directive `{known}` is not served by this version");
                scope.error(span, message, *remedy);
            }
            None => unknown(directive, scope),
        }
    }
}

fn repeated(directive: &Directive, earlier: Span, scope: &mut Scope<'_>) {
    let name = &directive.name.text;
    let message = format!("`{name}` may stand only once in a server block");
    scope.diagnostics.error(
        Diagnostic::at(directive.name.span, message).other(earlier, "first here").remedy("merge the two"),
    );
}

fn unknown(directive: &Directive, scope: &mut Scope<'_>) {
    let name = directive.name.text.as_str();
    let remedy = match nearest(name, TABLE.iter().map(|(known, _)| *known)) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("served are: {}", served().join(", ")),
    };
    scope.error(directive.name.span, format!("unknown directive `{name}`"), remedy);
}
