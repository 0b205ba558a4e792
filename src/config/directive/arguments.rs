//! Reading a directive's words: counts, numbers, durations, addresses. Each reader reports what is
//! wrong and returns `None`.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::Scope;
use crate::config::corefile::{Directive, Span, Word};
use crate::config::duration;
use crate::config::listen::listen_addresses;
use crate::config::nearest::nearest;
use crate::config::zone;
use crate::wire::Name;

/// Compiled size of one pattern; ten thousand ordinary characters.
const PATTERN_BYTES: usize = 1 << 20;
const RCODES: &[(&str, u16)] = &[
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
    ("BADVERS", 16),
    ("BADSIG", 16),
    ("BADKEY", 17),
    ("BADTIME", 18),
    ("BADMODE", 19),
    ("BADNAME", 20),
    ("BADALG", 21),
    ("BADTRUNC", 22),
    ("BADCOOKIE", 23),
];

impl Directive {
    /// The words after the name, if their number is within `count`.
    pub(super) fn arguments(
        &self,
        count: RangeInclusive<usize>,
        usage: &str,
        scope: &mut Scope<'_>,
    ) -> Option<&[Word]> {
        if count.contains(&self.args.len()) {
            return Some(&self.args);
        }
        let message = format!("wrong number of arguments for `{}`", self.name.text);
        scope.error(self.span(), message, format!("write: {usage}"));
        None
    }

    /// Reports a body where none is taken.
    pub(super) fn without_options(&self, scope: &mut Scope<'_>) {
        for option in self.options() {
            let message = format!("`{}` takes no options", self.name.text);
            scope.error(option.name.span, message, "remove the braces");
        }
    }

    /// Reports this line as none of the options in `known`.
    pub(super) fn unknown_option(&self, known: &[&str], scope: &mut Scope<'_>) {
        let name = self.name.text.as_str();
        let remedy = match nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("options are: {}", known.join(", ")),
        };
        scope.error(self.name.span, format!("unknown option `{name}`"), remedy);
    }

    /// Name and arguments, as far as they stand on the name's line.
    fn span(&self) -> Span {
        let end = match self.args.last() {
            Some(last) if last.span.file == self.name.span.file => last.span.end,
            _ => self.name.span.end,
        };
        Span { end: end.max(self.name.span.end), ..self.name.span }
    }
}

/// A whole number in `range`.
pub(super) fn number<T>(word: &Word, range: RangeInclusive<T>, scope: &mut Scope<'_>) -> Option<T>
where
    T: FromStr + PartialOrd + Display,
{
    let value = word.text.parse().ok().filter(|value| range.contains(value));
    if value.is_none() {
        let message =
            format!("`{}` is not a whole number from {} to {}", word.text, range.start(), range.end());
        scope.error(word.span, message, "write a number in that range");
    }
    value
}

/// A duration in `range`.
pub(super) fn duration(
    word: &Word,
    range: RangeInclusive<Duration>,
    scope: &mut Scope<'_>,
) -> Option<Duration> {
    let why = match duration::parse(&word.text) {
        Ok(value) if range.contains(&value) => return Some(value),
        Ok(_) => "out of range".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!(
        "`{}` is not a duration from {} to {}: {why}",
        word.text,
        duration::show(*range.start()),
        duration::show(*range.end()),
    );
    scope.error(word.span, message, "write a number with its unit, such as 500ms, 30s or 1h");
    None
}

/// A duration in `range`, of which the unit may be missing: CoreDNS then takes seconds in places.
pub(super) fn seconds_or_duration(
    word: &Word,
    range: RangeInclusive<Duration>,
    scope: &mut Scope<'_>,
) -> Option<Duration> {
    let seconds = word.text.parse().ok().map(Duration::from_secs);
    seconds.filter(|value| range.contains(value)).or_else(|| duration(word, range, scope))
}

/// A response code by its name.
pub(super) fn rcode(word: &Word, scope: &mut Scope<'_>) -> Option<u16> {
    let known = RCODES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word.text));
    if known.is_none() {
        let message = format!("`{}` is not a response code", word.text);
        scope.error(word.span, message, "write a name such as SERVFAIL or NXDOMAIN");
    }
    known.map(|(_, code)| *code)
}

/// A regular expression.
pub(super) fn pattern(word: &Word, scope: &mut Scope<'_>) -> Option<regex::Regex> {
    let built = regex::RegexBuilder::new(&word.text).size_limit(PATTERN_BYTES).build();
    match built {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            // The crate's own message draws a caret over several lines; its last line says why.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default();
            let why = why.trim_start_matches("error: ");
            let message = format!("`{}` is not a regular expression: {why}", word.text);
            scope.error(word.span, message, "write it in RE2 syntax, in quotes if it has blanks");
            None
        }
    }
}

/// The zones of some words, reverse prefixes expanded; broken ones are reported and left out.
pub(super) fn zones(words: &[Word], scope: &mut Scope<'_>) -> Vec<Name> {
    let mut names = Vec::new();
    for word in words {
        match zone::parse(&word.text) {
            Ok(found) => names.extend(found),
            Err(error) => scope.error(
                word.span,
                format!("`{}` is not a zone: {error}", word.text),
                "write a domain name or an address prefix such as 10.0.0.0/8",
            ),
        }
    }
    names
}

/// `[HOST]:PORT` to listen on. Without a host it is every address of both families.
pub(super) fn listen_address(word: &Word, scope: &mut Scope<'_>) -> Vec<SocketAddr> {
    listen_addresses(&word.text).unwrap_or_else(|| {
        let message = format!("`{}` is not an address to listen on", word.text);
        scope.error(word.span, message, "write IP:PORT, [IPV6]:PORT or :PORT");
        Vec::new()
    })
}
