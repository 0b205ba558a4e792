//! What a rule is about, and what it makes of a question.

use std::ops::RangeInclusive;

use super::Question;
use super::answer::{Change, Rename};

/// `rewrite [continue|stop] FIELD ...`
#[derive(Debug, Clone)]
pub struct Rule {
    /// When it concerns a query, no other rule is asked (`stop`).
    pub is_last: bool,
    /// What it does.
    pub action: Action,
}

/// What a rule does to the queries it concerns.
#[derive(Debug, Clone)]
pub enum Action {
    /// Asks for another name.
    Name {
        /// The names it concerns.
        names: Matcher,
        /// What comes for what matched; of a regular expression, for the whole name, with `{N}` for groups.
        to: String,
        /// Answers get the first name back (`answer auto`).
        auto: bool,
        /// Further changes of answers.
        answers: Vec<AnswerRule>,
    },
    /// Asks for another type.
    Type {
        /// The client's.
        from: u16,
        /// The upstream's.
        to: u16,
    },
    /// Asks for another class.
    Class {
        /// The client's.
        from: u16,
        /// The upstream's.
        to: u16,
    },
    /// Changes an option of the query to the upstream.
    EdnsOption {
        /// Its number.
        code: u16,
        /// What is done to it.
        edit: OptionEdit,
    },
    /// Brings TTLs into a range.
    Ttl {
        /// The names it concerns.
        names: Matcher,
        /// Seconds.
        range: RangeInclusive<u32>,
    },
    /// Changes a response code.
    Rcode {
        /// The names it concerns.
        names: Matcher,
        /// The upstream's.
        from: u16,
        /// The client's.
        to: u16,
    },
}

/// What is done to the EDNS options of the query to the upstream, which has none of the client's: those are
/// hop by hop (RFC 6891 §6.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionEdit {
    /// It has these octets, once.
    Set(Vec<u8>),
    /// It comes with these octets, once more.
    Append(Vec<u8>),
    /// It has these octets, if it is there.
    Replace(Vec<u8>),
    /// It is not there.
    Unset,
}

/// Which names a rule concerns. Texts are in lower case and end with a dot, as names do.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// This name.
    Exact(String),
    /// Names that begin so.
    Prefix(String),
    /// Names that end so, not necessarily at a label's border.
    Suffix(String),
    /// Names that have this anywhere.
    Substring(String),
    /// Names that this matches.
    Regex(regex::Regex),
}

/// `answer name|value FROM TO`
#[derive(Debug, Clone)]
pub struct AnswerRule {
    /// Of the records.
    pub part: AnswerPart,
    /// What is changed.
    pub pattern: regex::Regex,
    /// The whole of what comes for it, with `{N}` for groups.
    pub to: String,
}

/// What of a record a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerPart {
    /// Its owner.
    Name,
    /// The name it points to.
    Value,
}

impl Rule {
    /// Does what it does to `question`, and notes in `changes` what is to be done to the answer. False: it has
    /// nothing to do with this question.
    pub(super) fn apply<'r>(&'r self, question: &mut Question, changes: &mut Vec<Change<'r>>) -> bool {
        match &self.action {
            Action::Name { names, to, auto, answers } => {
                let Some(name) = names.replace(&question.name, to) else { return false };
                let asked = std::mem::replace(&mut question.name, name);
                if *auto || matches!(names, Matcher::Exact(_)) {
                    let back = match names {
                        Matcher::Suffix(suffix) => Rename::Suffix { from: to, to: suffix },
                        _ => Rename::Domain { from: question.name.clone(), to: asked },
                    };
                    changes.push(Change::Name(AnswerPart::Name, back.clone()));
                    changes.push(Change::Name(AnswerPart::Value, back));
                }
                let change = |rule: &'r AnswerRule| {
                    Change::Name(rule.part, Rename::Regex { pattern: &rule.pattern, to: &rule.to })
                };
                changes.extend(answers.iter().map(change));
                true
            }
            Action::Type { from, to } => replace(&mut question.qtype, *from, *to),
            Action::Class { from, to } => replace(&mut question.qclass, *from, *to),
            Action::EdnsOption { code, edit } => edit.apply(*code, &mut question.options),
            Action::Ttl { names, range } => {
                let concerned = names.is_match(&question.name);
                changes.extend(concerned.then_some(Change::Ttl(range)));
                concerned
            }
            Action::Rcode { names, from, to } => {
                let concerned = names.is_match(&question.name);
                changes.extend(concerned.then_some(Change::Rcode { from: *from, to: *to }));
                concerned
            }
        }
    }
}

fn replace(number: &mut u16, from: u16, to: u16) -> bool {
    let concerned = *number == from;
    if concerned {
        *number = to;
    }
    concerned
}

impl OptionEdit {
    /// Does it to `options`; false: there was nothing to replace.
    fn apply(&self, code: u16, options: &mut Vec<(u16, Vec<u8>)>) -> bool {
        let there = options.iter_mut().find(|(known, _)| *known == code);
        match (self, there) {
            (OptionEdit::Set(data) | OptionEdit::Replace(data), Some((_, octets))) => octets.clone_from(data),
            (OptionEdit::Set(data) | OptionEdit::Append(data), _) => options.push((code, data.clone())),
            (OptionEdit::Replace(_), None) => return false,
            (OptionEdit::Unset, _) => options.retain(|(known, _)| *known != code),
        }
        true
    }
}

impl Matcher {
    fn is_match(&self, name: &str) -> bool {
        match self {
            Matcher::Exact(wanted) => name == wanted,
            Matcher::Prefix(prefix) => name.starts_with(prefix),
            Matcher::Suffix(suffix) => name.ends_with(suffix),
            Matcher::Substring(part) => name.contains(part),
            Matcher::Regex(pattern) => pattern.is_match(name),
        }
    }

    /// `name` with `to` for what matched; `None`: nothing did.
    fn replace(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Matcher::Exact(wanted) => (name == wanted).then(|| to.to_owned()),
            Matcher::Prefix(prefix) => name.strip_prefix(prefix.as_str()).map(|rest| format!("{to}{rest}")),
            Matcher::Suffix(suffix) => name.strip_suffix(suffix.as_str()).map(|rest| format!("{rest}{to}")),
            Matcher::Substring(part) => name.contains(part).then(|| name.replace(part, to)),
            Matcher::Regex(pattern) => substitute(pattern, name, to),
        }
    }
}

/// `to` with the groups that `pattern` finds in `text`; `None`: it does not match.
pub(super) fn substitute(pattern: &regex::Regex, text: &str, to: &str) -> Option<String> {
    let groups = pattern.captures(text)?;
    let (mut made, mut rest) = (String::new(), to);
    // Once: what a group holds comes from outside and may have braces, too.
    while let Some((before, after)) = rest.split_once('{') {
        made.push_str(before);
        match after.split_once('}').and_then(|(index, behind)| Some((group_number(index, &groups)?, behind)))
        {
            Some((index, behind)) => {
                made.push_str(groups.get(index).map_or("", |group| group.as_str()));
                rest = behind;
            }
            None => {
                made.push('{');
                rest = after;
            }
        }
    }
    made.push_str(rest);
    Some(made)
}

/// The number of one of `groups`, in digits without zeros before.
fn group_number(digits: &str, groups: &regex::Captures<'_>) -> Option<usize> {
    (0..groups.len()).find(|index| index.to_string() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(pattern: &str, text: &str, to: &str) -> Option<String> {
        substitute(&regex::Regex::new(pattern).unwrap(), text, to)
    }

    #[test]
    fn groups_come_for_their_numbers() {
        assert_eq!(made("^(.*)-(x)?(.*)$", "a-b", "{3}.{2}{1}.{0}").as_deref(), Some("b.a.a-b"));
        assert_eq!(made("^(.)$", "a", "{1}{2}{01}{{1}{1").as_deref(), Some("a{2}{01}{a{1"));
        assert_eq!(made("^a$", "b", "c"), None);
    }

    /// A name may hold braces. Were they groups in their turn, a short name could become very long.
    #[test]
    fn what_comes_for_a_group_is_no_pattern_itself() {
        let name = "{1}{2}{3}{4}".repeat(10);
        assert_eq!(made("^((((.*))))$", &name, "{0}"), Some(name));
    }
}
