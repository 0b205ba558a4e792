//! The tokens of node-cache's template, replaced in the parsed tree.
//!
//! node-cache replaces text and so depends on the template's indentation; on the tree the stock file
//! gives the same result and every other indentation gives it too.

use std::net::IpAddr;

use super::corefile::{Block, Corefile, Directive, Word};
use super::error::{Diagnostic, Diagnostics};

const UPSTREAM_SERVERS: &str = "__PILLAR__UPSTREAM__SERVERS__";
const CLUSTER_DNS: &str = "__PILLAR__CLUSTER__DNS__";
const LOCAL_DNS: &str = "__PILLAR__LOCAL__DNS__";
const DNS_SERVER: &str = "__PILLAR__DNS__SERVER__";
const DNS_DOMAIN: &str = "__PILLAR__DNS__DOMAIN__";
const PROMETHEUS_ENDPOINT: &str = "__PROMETHEUS__ENDPOINT__";

/// What the tokens stand for.
#[derive(Debug, Clone)]
pub(super) struct Values<'a> {
    /// `-localip`.
    pub local_ips: &'a [IpAddr],
    /// The cluster's DNS service.
    pub cluster_dns: Option<IpAddr>,
    /// The variable that names it.
    pub service_variable: &'a str,
    /// `upstreamNameservers`; empty: /etc/resolv.conf over the client's transport.
    pub upstream_nameservers: &'a [String],
    /// `-prometheus-listen-address`.
    pub prometheus: &'a str,
}

/// Replaces every token. Returns one line for each block that had to be left out because the
/// cluster's DNS service is unknown.
pub(super) fn expand(
    corefile: &mut Corefile,
    values: &Values<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    let mut omitted = Vec::new();
    corefile.blocks.retain_mut(|block| {
        if values.cluster_dns.is_none()
            && let Some(word) = find(block, CLUSTER_DNS)
        {
            let place = diagnostics.sources.place(word.span);
            let zones: Vec<&str> = block.labels.iter().map(|label| label.text.as_str()).collect();
            omitted.push(format!(
                "{place}: block `{}` is left out: {} is unset or no IP address; create the service \
                 before the pod, in the pod's namespace, and name it with -upstreamsvc",
                zones.join(" "),
                values.service_variable,
            ));
            return false;
        }
        if values.local_ips.is_empty()
            && let Some(word) = find(block, LOCAL_DNS)
        {
            let error = Diagnostic::at(word.span, format!("{LOCAL_DNS} stands for no address"));
            diagnostics.error(error.remedy("give the addresses with -localip"));
            return false;
        }
        if let Some(word) = block.labels.iter().find(|word| word.text.contains(DNS_DOMAIN)) {
            let message = format!("{DNS_DOMAIN} is never replaced at run time, it is a zone name here");
            diagnostics.warn(
                Diagnostic::at(word.span, message)
                    .remedy("write the cluster's domain, usually cluster.local"),
            );
        }
        expand_words(&mut block.labels, values);
        for directive in &mut block.directives {
            expand_directive(directive, values);
        }
        true
    });
    omitted
}

fn find<'a>(block: &'a Block, token: &str) -> Option<&'a Word> {
    fn in_lines<'a>(lines: &'a [Directive], token: &str) -> Option<&'a Word> {
        lines.iter().find_map(|line| {
            let here = line.args.iter().find(|word| word.text.contains(token));
            here.or_else(|| in_lines(line.options(), token))
        })
    }
    let label = block.labels.iter().find(|word| word.text.contains(token));
    label.or_else(|| in_lines(&block.directives, token))
}

fn expand_directive(directive: &mut Directive, values: &Values<'_>) {
    if !values.upstream_nameservers.is_empty() && is_stock_tcp_forward(directive) {
        directive.body = None;
    }
    expand_words(&mut directive.args, values);
    for line in directive.body.iter_mut().flatten() {
        expand_directive(line, values);
    }
}

/// `forward . __PILLAR__UPSTREAM__SERVERS__ { force_tcp }`: upstreams of the operator's own choice
/// need not speak TCP.
fn is_stock_tcp_forward(directive: &Directive) -> bool {
    let is = |word: &Word, text: &str| word.text == text;
    let args = matches!(directive.args.as_slice(), [from, to] if is(from, ".") && is(to, UPSTREAM_SERVERS));
    let body = matches!(directive.options(), [line] if is(&line.name, "force_tcp") && line.args.is_empty());
    is(&directive.name, "forward") && args && body
}

fn expand_words(words: &mut Vec<Word>, values: &Values<'_>) {
    let before = std::mem::take(words);
    words.extend(
        before
            .into_iter()
            .flat_map(|word| if word.text.contains("__P") { expand_word(word, values) } else { vec![word] }),
    );
}

/// A token alone may become several words, or none; inside a longer word (`TOKEN:8080`) it becomes
/// its first value.
fn expand_word(word: Word, values: &Values<'_>) -> Vec<Word> {
    let tokens = [
        (UPSTREAM_SERVERS, upstream_servers(values)),
        (CLUSTER_DNS, values.cluster_dns.iter().map(IpAddr::to_string).collect()),
        (LOCAL_DNS, values.local_ips.iter().map(IpAddr::to_string).collect()),
        (DNS_SERVER, Vec::new()),
        (PROMETHEUS_ENDPOINT, vec![values.prometheus.to_owned()]),
    ];
    if let Some((_, list)) = tokens.iter().find(|(token, _)| *token == word.text) {
        let with = |text: &String| Word { text: text.clone(), ..word.clone() };
        return list.iter().map(with).collect();
    }
    let mut text = word.text.clone();
    for (token, list) in &tokens {
        let value = list.first().map(String::as_str).unwrap_or_default();
        // `TOKEN:PORT` needs brackets around an IPv6 address.
        if value.contains("::") || value.matches(':').count() > 1 {
            text = text.replace(&format!("{token}:"), &format!("[{value}]:"));
        }
        text = text.replace(token, value);
    }
    if text.is_empty() {
        return Vec::new();
    }
    vec![Word { text, ..word }]
}

fn upstream_servers(values: &Values<'_>) -> Vec<String> {
    match values.upstream_nameservers {
        [] => vec!["/etc/resolv.conf".to_owned()],
        own => own.to_vec(),
    }
}
