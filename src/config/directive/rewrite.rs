//! `rewrite [continue|stop] name|type|class|edns0|ttl|rcode ...`, on one line or in braces.

use std::ops::RangeInclusive;

use hickory_proto::rr::{DNSClass, RecordType};

use super::Scope;
use super::arguments::{pattern, rcode};
use crate::config::corefile::{Directive, Word};
use crate::plugin::{Action, AnswerPart, AnswerRule, Matcher, Rule};

mod edns0;

const USAGE: &str = "rewrite [continue|stop] name|type|class|edns0|ttl|rcode ...";
const NAME_USAGE: &str = "rewrite name [exact|prefix|suffix|substring|regex] FROM TO [answer auto|answer name \
                          FROM TO|answer value FROM TO]";
/// TTLs are 31 bits (RFC 2181 §8).
const MAX_TTL: u32 = i32::MAX as u32;
const KINDS: [&str; 5] = ["exact", "prefix", "suffix", "substring", "regex"];

pub(super) fn rewrite(directive: &Directive, scope: &mut Scope<'_>) {
    let mut words = directive.args.clone();
    if words.len() < 2 {
        // CoreDNS takes the words of all lines in braces for one rule, too.
        let lines = directive.options().iter();
        words.extend(lines.flat_map(|line| [std::slice::from_ref(&line.name), &line.args].concat()));
    } else {
        directive.without_options(scope);
    }
    let (is_last, words) = match words.split_first() {
        Some((first, rest)) if first.text.eq_ignore_ascii_case("continue") => (false, rest),
        Some((first, rest)) if first.text.eq_ignore_ascii_case("stop") => (true, rest),
        _ => (true, words.as_slice()),
    };
    let Some((field, rest)) = words.split_first() else {
        return scope.error(directive.name.span, "`rewrite` lacks its rule", format!("write: {USAGE}"));
    };
    let action = match field.text.to_ascii_lowercase().as_str() {
        "name" => name(field, rest, scope),
        "type" => numbers(field, rest, number_of_type, scope).map(|(from, to)| Action::Type { from, to }),
        "class" => numbers(field, rest, number_of_class, scope).map(|(from, to)| Action::Class { from, to }),
        "ttl" => ttl(field, rest, scope),
        "rcode" => response_code(field, rest, scope),
        "edns0" => edns0::option(field, rest, scope),
        "cname" => {
            let message = "`rewrite cname` is not served by this version";
            scope.error(field.span, message, "remove it, or keep this zone on node-cache");
            None
        }
        other => {
            let message = format!("`rewrite` cannot change `{other}`");
            scope.error(field.span, message, format!("write: {USAGE}"));
            None
        }
    };
    scope.block.steps.rewrites.extend(action.map(|action| Rule { is_last, action }));
}

/// `name [KIND] FROM TO [answer ...]`
fn name(field: &Word, words: &[Word], scope: &mut Scope<'_>) -> Option<Action> {
    let (kind, from, to, answers) = match words {
        [from, to] => ("exact", from, to, &[][..]),
        [kind, from, to, answers @ ..] => (kind_of(kind, scope)?, from, to, answers),
        _ => {
            let message = "`rewrite name` lacks its names";
            scope.error(field.span, message, format!("write: {NAME_USAGE}"));
            return None;
        }
    };
    let names = matcher(kind, from, scope)?;
    if let Matcher::Regex(pattern) = &names {
        groups_exist(pattern, to, scope)?;
    }
    let (auto, answers) = answer_rules(answers, scope)?;
    Some(Action::Name { names, to: normal(&to.text), auto, answers })
}

/// `answer auto`, `answer name FROM TO`, `answer value FROM TO`; a second one may lack its first word.
fn answer_rules(mut words: &[Word], scope: &mut Scope<'_>) -> Option<(bool, Vec<AnswerRule>)> {
    let (mut auto, mut rules) = (None, Vec::new());
    if let Some(first) = words.first().filter(|first| first.text != "answer") {
        let message = format!("`{}` is too much for a rule", first.text);
        scope.error(first.span, message, format!("write: {NAME_USAGE}"));
        return None;
    }
    while let [word, after @ ..] = words {
        let (part, after) = match after {
            [part, after @ ..] if word.text == "answer" => (part, after),
            _ => (word, after),
        };
        words = match (part.text.as_str(), after) {
            ("auto", after) => {
                auto = Some(part);
                after
            }
            (kind @ ("name" | "value"), [from, to, after @ ..]) => {
                let part = if kind == "name" { AnswerPart::Name } else { AnswerPart::Value };
                let pattern = pattern(from, scope)?;
                groups_exist(&pattern, to, scope)?;
                rules.push(AnswerRule { part, pattern, to: normal(&to.text) });
                after
            }
            _ => {
                let message = "an answer rule lacks what it changes";
                scope.error(
                    part.span,
                    message,
                    "write: answer auto|answer name FROM TO|answer value FROM TO",
                );
                return None;
            }
        };
    }
    if let Some(auto) = auto.filter(|_| rules.iter().any(|rule| rule.part == AnswerPart::Name)) {
        scope.error(auto.span, "`answer auto` and `answer name` exclude each other", "remove one of the two");
    }
    Some((auto.is_some(), rules))
}

/// `ttl [KIND] NAME SECONDS|MIN-MAX|MIN-|-MAX`
fn ttl(field: &Word, words: &[Word], scope: &mut Scope<'_>) -> Option<Action> {
    let (kind, name, range) = match words {
        [name, range] => ("exact", name, range),
        [kind, name, range] => (kind_of(kind, scope)?, name, range),
        _ => {
            let remedy = "write: rewrite ttl [exact|prefix|suffix|substring|regex] NAME SECONDS|MIN-MAX";
            scope.error(field.span, "wrong number of words for `rewrite ttl`", remedy);
            return None;
        }
    };
    let Some(seconds) = seconds(&range.text) else {
        let message = format!("`{}` is not a TTL", range.text);
        scope.error(range.span, message, "write seconds such as 30, or a range such as 30-300, 30- or -300");
        return None;
    };
    Some(Action::Ttl { names: matcher(kind, name, scope)?, range: seconds })
}

fn seconds(text: &str) -> Option<RangeInclusive<u32>> {
    let number = |text: &str, open| if text.is_empty() { Some(open) } else { text.parse::<u32>().ok() };
    let range = match text.split_once('-') {
        None => {
            let exactly = text.parse().ok()?;
            exactly..=exactly
        }
        Some(("", "")) => return None,
        Some((least, most)) => number(least, 0)?..=number(most, MAX_TTL)?,
    };
    (!range.is_empty()).then_some(range)
}

/// `rcode [KIND] NAME FROM TO`
fn response_code(field: &Word, words: &[Word], scope: &mut Scope<'_>) -> Option<Action> {
    let (kind, name, from, to) = match words {
        [name, from, to] => ("exact", name, from, to),
        [kind, name, from, to] => (kind_of(kind, scope)?, name, from, to),
        _ => {
            let remedy = "write: rewrite rcode [exact|prefix|suffix|substring|regex] NAME FROM TO";
            scope.error(field.span, "wrong number of words for `rewrite rcode`", remedy);
            return None;
        }
    };
    let mut code = |word: &Word| match word.text.parse() {
        Ok(number @ 0..=23) => Some(number),
        _ => rcode(word, scope),
    };
    let (from, to) = (code(from)?, code(to)?);
    Some(Action::Rcode { names: matcher(kind, name, scope)?, from, to })
}

/// `type FROM TO` and `class FROM TO`
fn numbers(
    field: &Word,
    words: &[Word],
    read: fn(&str) -> Option<u16>,
    scope: &mut Scope<'_>,
) -> Option<(u16, u16)> {
    let what = &field.text;
    let [from, to] = words else {
        let message = format!("wrong number of words for `rewrite {what}`");
        scope.error(field.span, message, format!("write: rewrite {what} FROM TO"));
        return None;
    };
    let mut number = |word: &Word| {
        let number = read(&word.text.to_ascii_uppercase());
        if number.is_none() {
            let message = format!("`{}` is not a {what}", word.text);
            scope.error(word.span, message, "write a name such as A or AAAA of types, IN or CH of classes");
        }
        number
    };
    Some((number(from)?, number(to)?))
}

fn number_of_type(text: &str) -> Option<u16> {
    text.parse::<RecordType>().ok().map(u16::from)
}

fn number_of_class(text: &str) -> Option<u16> {
    text.parse::<DNSClass>().ok().map(u16::from)
}

/// One of [`KINDS`].
fn kind_of(word: &Word, scope: &mut Scope<'_>) -> Option<&'static str> {
    let kind = KINDS.into_iter().find(|kind| word.text.eq_ignore_ascii_case(kind));
    if kind.is_none() {
        let message = format!("`{}` is no way to match a name", word.text);
        scope.error(word.span, message, format!("write one of: {}", KINDS.join(", ")));
    }
    kind
}

fn matcher(kind: &str, word: &Word, scope: &mut Scope<'_>) -> Option<Matcher> {
    let text = || normal(&word.text);
    Some(match kind {
        "prefix" => Matcher::Prefix(text()),
        "suffix" => Matcher::Suffix(text()),
        "substring" => Matcher::Substring(text()),
        "regex" => Matcher::Regex(pattern(word, scope)?),
        _ => Matcher::Exact(text()),
    })
}

/// In lower case and with a final dot, as CoreDNS compares all names, and parts of names.
fn normal(text: &str) -> String {
    let dot = if text.ends_with('.') { "" } else { "." };
    text.to_ascii_lowercase() + dot
}

/// Refuses groups in `to` that `pattern` does not have.
fn groups_exist(pattern: &regex::Regex, to: &Word, scope: &mut Scope<'_>) -> Option<()> {
    let used = (0..=100).filter(|group| to.text.contains(&format!("{{{group}}}"))).count();
    if used < pattern.captures_len() {
        return Some(());
    }
    let message = format!("`{}` names more groups than `{pattern}` has", to.text);
    scope.error(to.span, message, "put what is to be kept in parentheses");
    None
}
