//! What stands between `{{` and `}}`: the part of Go's template language that makes records.

use std::fmt;

use regex::Regex;

/// What can be said between the braces, for who reads an error.
pub const SUPPORTED: &str = "served are {{ .Name }}, .Zone, .Class, .Type, .Match, .Regex, .Group.NAME, \
                             .Question.Name, .Question.Qtype, .Question.Qclass, {{ index .Match 1 }}, \
                             {{ index .Group \"NAME\" }} and {{ parseInt .Group.NAME 16 8 }}";

/// A value that is known once a query is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Name,
    Zone,
    Class,
    Type,
    Regex,
    QuestionName,
    QuestionType,
    QuestionClass,
    /// The whole match and its groups, as Go prints a list.
    Match,
    MatchAt(usize),
    Group(String),
    Text(String),
    ParseInt(Box<Expression>, u32, u32),
}

/// Why something between braces is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// `{{` without `}}`.
    #[error("`{{{{` is not closed")]
    Unclosed,
    /// Something of Go's language that is not served, or nothing at all.
    #[error("`{{{{ {0} }}}}` is not served by this version")]
    NotServed(String),
    /// The answer would be one client's alone.
    #[error("`{{{{ {0} }}}}` differs from client to client, but answers are shared by all")]
    PerClient(String),
}

/// What an expression is computed from.
pub(in crate::plugin) struct Facts<'a> {
    /// The name, in lower case, with its final dot.
    pub name: &'a str,
    /// As the client spelt it.
    pub question: &'a str,
    pub qtype: u16,
    pub qclass: u16,
    pub zone: String,
    pub class: String,
    pub type_name: String,
    pub pattern: &'a Regex,
    /// Of the pattern in the name; those that took no part are empty.
    pub groups: Vec<&'a str>,
}

/// Go's text for what is not in a map.
const NO_VALUE: &str = "<no value>";

impl Expression {
    /// Reads what stands between the braces.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        let not_served = || ExpressionError::NotServed(text.trim().to_owned());
        let tokens = tokens(text).ok_or_else(not_served)?;
        if tokens.iter().any(|token| [".Remote", ".Message.Id", ".Message.ID"].contains(&token.as_str())) {
            return Err(ExpressionError::PerClient(text.trim().to_owned()));
        }
        let mut rest = tokens.as_slice();
        let expression = command(&mut rest, DEEPEST).ok_or_else(not_served)?;
        if rest.is_empty() { Ok(expression) } else { Err(not_served()) }
    }

    /// Appends the value to `out`; `Err` says why there is none.
    pub fn write(&self, facts: &Facts<'_>, out: &mut String) -> Result<(), String> {
        match self {
            Expression::Name => out.push_str(facts.name),
            Expression::Zone => out.push_str(&facts.zone),
            Expression::Class => out.push_str(&facts.class),
            Expression::Type => out.push_str(&facts.type_name),
            Expression::Regex => out.push_str(facts.pattern.as_str()),
            Expression::QuestionName => out.push_str(facts.question),
            Expression::QuestionType => out.push_str(&facts.qtype.to_string()),
            Expression::QuestionClass => out.push_str(&facts.qclass.to_string()),
            Expression::Match => {
                out.push('[');
                out.push_str(&facts.groups.join(" "));
                out.push(']');
            }
            Expression::MatchAt(index) => match facts.groups.get(*index) {
                Some(text) => out.push_str(text),
                None => return Err(format!("the match has no group {index}")),
            },
            Expression::Group(name) => {
                let index = group_index(facts.pattern, name);
                out.push_str(index.and_then(|index| facts.groups.get(index)).map_or(NO_VALUE, |text| *text));
            }
            Expression::Text(text) => out.push_str(text),
            Expression::ParseInt(digits, base, bits) => {
                let mut text = String::new();
                digits.write(facts, &mut text)?;
                let number = u64::from_str_radix(&text, *base).ok().filter(|_| !text.starts_with('+'));
                let Some(number) = number.filter(|number| *bits == 64 || number >> bits == 0) else {
                    return Err(format!("`{text}` is not a number of {bits} bits in base {base}"));
                };
                out.push_str(&number.to_string());
            }
        }
        Ok(())
    }

    /// Whether a match of `pattern` has what this asks of it.
    pub fn fits(&self, pattern: &Regex) -> bool {
        match self {
            Expression::MatchAt(index) => *index < pattern.captures_len(),
            Expression::Group(name) => group_index(pattern, name).is_some(),
            Expression::ParseInt(digits, ..) => digits.fits(pattern),
            _ => true,
        }
    }
}

/// The group called `name`: by the name it has in the pattern, else by its number.
fn group_index(pattern: &Regex, name: &str) -> Option<usize> {
    let named = pattern.capture_names().position(|known| known == Some(name));
    named.or_else(|| name.parse().ok().filter(|index: &usize| *index < pattern.captures_len()))
}

/// How many parentheses may stand in each other.
const DEEPEST: usize = 8;

/// A function with its operands, or an operand alone, with `depth` parentheses in each other at most.
fn command(rest: &mut &[String], depth: usize) -> Option<Expression> {
    let (first, after) = rest.split_first()?;
    match first.as_str() {
        "index" => {
            *rest = after;
            let (list, key) = (take(rest)?, take(rest)?);
            match (list.as_str(), key.strip_prefix('"')) {
                (".Match", None) => Some(Expression::MatchAt(key.parse().ok()?)),
                (".Group", Some(name)) => Some(Expression::Group(name.to_owned())),
                _ => None,
            }
        }
        "parseInt" => {
            *rest = after;
            let digits = operand(rest, depth)?;
            let (base, bits): (u32, u32) = (take(rest)?.parse().ok()?, take(rest)?.parse().ok()?);
            // Go takes 0 bits for 64.
            let bits = if bits == 0 { 64 } else { bits };
            ((2..=36).contains(&base) && bits <= 64)
                .then(|| Expression::ParseInt(Box::new(digits), base, bits))
        }
        _ => operand(rest, depth),
    }
}

fn operand(rest: &mut &[String], depth: usize) -> Option<Expression> {
    let token = take(rest)?;
    Some(match token.as_str() {
        "(" => {
            let inner = command(rest, depth.checked_sub(1)?)?;
            (take(rest)? == ")").then_some(inner)?
        }
        ".Name" => Expression::Name,
        ".Zone" => Expression::Zone,
        ".Class" => Expression::Class,
        ".Type" => Expression::Type,
        ".Regex" => Expression::Regex,
        ".Match" => Expression::Match,
        ".Question.Name" => Expression::QuestionName,
        ".Question.Qtype" => Expression::QuestionType,
        ".Question.Qclass" => Expression::QuestionClass,
        other => match (other.strip_prefix('"'), other.strip_prefix(".Group.")) {
            (Some(text), _) => Expression::Text(text.to_owned()),
            (None, Some(name)) => {
                let begins = |c: char| c.is_alphabetic() || c == '_';
                let goes_on = |c: char| c.is_alphanumeric() || c == '_';
                (name.starts_with(begins) && name.chars().all(goes_on)).then(|| name.to_owned())
            }
            .map(Expression::Group)?,
            (None, None) => return None,
        },
    })
}

fn take(rest: &mut &[String]) -> Option<String> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(first.clone())
}

/// Words, parentheses, and quoted texts, of which only the opening quote stays; `None` if one is not closed
/// or has an escape.
fn tokens(text: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => 1,
            '"' | '`' => {
                let inner = &rest[1..rest[1..].find(first)? + 1];
                if inner.contains('\\') {
                    return None;
                }
                tokens.push(format!("\"{inner}"));
                rest = rest[inner.len() + 2..].trim_start();
                continue;
            }
            _ => rest
                .find(|c: char| c.is_whitespace() || ['(', ')', '"', '`'].contains(&c))
                .unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Some(tokens)
}

impl fmt::Display for Expression {
    /// As Go prints it, less the braces.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::Name => out.write_str(".Name"),
            Expression::Zone => out.write_str(".Zone"),
            Expression::Class => out.write_str(".Class"),
            Expression::Type => out.write_str(".Type"),
            Expression::Regex => out.write_str(".Regex"),
            Expression::QuestionName => out.write_str(".Question.Name"),
            Expression::QuestionType => out.write_str(".Question.Qtype"),
            Expression::QuestionClass => out.write_str(".Question.Qclass"),
            Expression::Match => out.write_str(".Match"),
            Expression::MatchAt(index) => write!(out, "index .Match {index}"),
            Expression::Group(name) => write!(out, ".Group.{name}"),
            Expression::Text(text) => write!(out, "\"{text}\""),
            Expression::ParseInt(digits, base, bits) => match **digits {
                Expression::MatchAt(_) => write!(out, "parseInt ({digits}) {base} {bits}"),
                _ => write!(out, "parseInt {digits} {base} {bits}"),
            },
        }
    }
}
