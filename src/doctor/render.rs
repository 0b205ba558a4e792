//! Findings for people, and for machines.

use super::checks::{self, Finding, Severity};
use super::facts::{Facts, KubeProxy, Process};
use crate::json::{Json, object};

/// Columns of text.
const WIDTH: usize = 100;
const INDENT: &str = "          ";

impl Severity {
    /// For machines, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// A paragraph for each finding, or one line.
pub fn text(facts: &Facts, findings: &[Finding]) -> String {
    let kernel = facts.kernel.as_ref().map_or("unknown", |kernel| &kernel.release);
    let proxy = facts.kube_proxy().map_or("unseen", KubeProxy::name);
    let readings =
        if facts.samples.len() > 1 { "counters read twice" } else { "counters read once, not compared" };
    let node = format!("Linux {kernel}, kube-proxy {proxy}, {readings}");
    if findings.is_empty() {
        let count = checks::all().count();
        return format!(
            "Nothing found: {count} checks of rules, sockets, conntrack, links and pods. {node}.\n"
        );
    }
    let mut text = format!("{node}.\n");
    for finding in findings {
        let severity = finding.severity.name().to_uppercase();
        text.push_str(&format!("\n{severity}  {}  [{}]\n", finding.headline, finding.id));
        for (label, words) in
            [("seen", finding.evidence.as_str()), ("means", finding.meaning), ("remedy", finding.remedy)]
        {
            paragraph(&mut text, label, words);
        }
    }
    text
}

/// The words behind their label, broken at blanks; a line of its own for each line of evidence.
fn paragraph(text: &mut String, label: &str, words: &str) {
    let mut line = format!("  {label:<8}");
    for (number, part) in words.lines().enumerate() {
        if number > 0 {
            text.push_str(line.trim_end());
            text.push('\n');
            line = INDENT.to_owned();
        }
        for word in part.split(' ') {
            if line.len() + word.len() > WIDTH && line.len() > INDENT.len() {
                text.push_str(line.trim_end());
                text.push('\n');
                line = INDENT.to_owned();
            }
            line.push_str(word);
            line.push(' ');
        }
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// One object.
pub fn json(facts: &Facts, findings: &[Finding]) -> Json {
    let finding = |finding: &Finding| {
        object([
            ("id", finding.id.into()),
            ("severity", finding.severity.name().into()),
            ("headline", finding.headline.into()),
            ("evidence", finding.evidence.as_str().into()),
            ("meaning", finding.meaning.into()),
            ("remedy", finding.remedy.into()),
        ])
    };
    let cache = |cache: &Process| {
        object([
            ("name", cache.name.as_str().into()),
            ("pid", u64::from(cache.pid).into()),
            ("version", facts.version.as_deref().into()),
        ])
    };
    object([
        ("findings", findings.iter().map(finding).collect()),
        ("kernel", facts.kernel.as_ref().map(|kernel| kernel.release.as_str()).into()),
        ("kube_proxy", facts.kube_proxy().map(KubeProxy::name).into()),
        ("local_ips", facts.wanted.local_ips.iter().map(ToString::to_string).collect()),
        ("cache", facts.caches.first().map(cache).into()),
        ("could_not_read", facts.unread.iter().collect()),
        ("doorstep", env!("CARGO_PKG_VERSION").into()),
    ])
}
