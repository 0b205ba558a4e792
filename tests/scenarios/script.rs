//! The text of a scenario.
//!
//! ```text
//! What is to be seen, in a sentence.
//!
//! control FROM => TO           in the control run the text below has TO for FROM (several may be given)
//! corefile [ZONE]              directives of the server block for ZONE, or for all names; several are
//!   cache 30                   served on one address
//!
//! upstream a.test A [takes 2s] => NOERROR [aa] [ad] [tc] [instead NAME]; @ 60 A 192.0.2.1
//!   authority test 60 SOA 30   an indented line goes on after a `;`
//!   40 * @ 60 TXT 20           that many times
//! upstream a.test A => fails   no answer comes; *.test stands for the names below test
//! ask a.test A [do] [cd] [ad] [no-rd] [edns SIZE] [class CH] [as ID] => hit, NOERROR, ttl 60, no aa, ede 3
//! reply ID => miss, answers 1  to an `ask` that was `pending`
//! wait 1.5s
//! every 100ms for 5m ask a.test A => hit
//! asked 2                      queries the upstream got since it was last looked at
//! entries success <= 1024      in the store
//! flood 5000 f*.test A         that many names asked once each, * the number
//! ```

use std::time::Duration;

use super::message::{Entry, Query, Response, record_type};

/// A scenario, ready to run.
#[derive(Debug)]
pub struct Scenario {
    /// Zone and directives of each server block.
    pub blocks: Vec<(String, String)>,
    /// Line number and step.
    pub steps: Vec<(usize, Step)>,
}

#[derive(Debug)]
pub enum Step {
    Upstream { name: String, qtype: u16, takes: Duration, says: Option<Response> },
    Ask { query: Query, id: Option<String>, expected: Vec<Expectation> },
    Every { pause: Duration, length: Duration, step: Box<Step> },
    Reply { id: String, expected: Vec<Expectation> },
    Wait(Duration),
    Asked(usize),
    Entries { denial: bool, least: usize, most: usize },
    Flood { count: usize, name: String, qtype: u16 },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    Hit,
    Miss,
    Pending,
    Rcode(u8),
    Ttl(u32),
    Flag(Flag, bool),
    Answers(usize),
    Records(usize),
    Data(String),
    /// Extended DNS error (RFC 8914).
    Ede(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    Authoritative,
    Authentic,
    Truncated,
}

const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

/// The scenario in `text`, and its control.
pub fn parse(text: &str) -> Result<(Scenario, Scenario), String> {
    let (sentence, rest) = text.split_once('\n').ok_or("the file is empty")?;
    if !sentence.ends_with('.') || sentence.starts_with('#') {
        return Err("the first line is no sentence".into());
    }
    let is_control = |line: &&str| line.starts_with("control ");
    // Empty lines in place of what is taken out, so that line numbers stay.
    let body: String =
        rest.lines().map(|line| if is_control(&line) { "" } else { line }.to_owned() + "\n").collect();
    let mut altered = body.clone();
    let mut controls = 0;
    for line in rest.lines().filter(is_control) {
        let (from, to) = line["control ".len()..].split_once("=>").ok_or(format!("`{line}` has no =>"))?;
        let from = from.trim();
        if from.is_empty() || !altered.contains(from) {
            return Err(format!("the control replaces `{from}`, which is not there"));
        }
        altered = altered.replace(from, to.trim());
        controls += 1;
    }
    if controls == 0 {
        return Err("the scenario has no control".into());
    }
    Ok((Scenario::parse(&body)?, Scenario::parse(&altered).map_err(|error| format!("control: {error}"))?))
}

impl Scenario {
    fn parse(body: &str) -> Result<Scenario, String> {
        let mut blocks: Vec<(String, String)> = Vec::new();
        let mut statements: Vec<(usize, String)> = Vec::new();
        let mut in_corefile = false;
        for (index, line) in body.lines().enumerate() {
            let content = line.trim();
            match content {
                "" => {}
                _ if content.starts_with('#') => {}
                _ if line.starts_with(' ') && in_corefile => {
                    let (_, directives) = blocks.last_mut().ok_or("directives of no block")?;
                    directives.push_str(&format!("{content}\n"));
                }
                _ if line.starts_with("corefile") => {
                    let zone = line["corefile".len()..].trim();
                    blocks.push((if zone.is_empty() { "." } else { zone }.to_owned(), String::new()));
                    in_corefile = true;
                }
                _ if line.starts_with(' ') => match statements.last_mut() {
                    Some((_, statement)) => statement.push_str(&format!("; {content}")),
                    None => return Err(format!("line {}: an indented line after nothing", index + 2)),
                },
                _ => {
                    in_corefile = false;
                    statements.push((index + 2, content.to_owned()));
                }
            }
        }
        let read = |(line, text): (usize, String)| match Step::parse(&text) {
            Ok(step) => Ok((line, step)),
            Err(error) => Err(format!("line {line}: {error}")),
        };
        let steps = statements.into_iter().map(read).collect::<Result<_, _>>()?;
        if blocks.is_empty() {
            return Err("there is no corefile".into());
        }
        Ok(Scenario { blocks, steps })
    }
}

impl Step {
    fn parse(text: &str) -> Result<Step, String> {
        let (head, tail) =
            text.split_once("=>").map_or((text, None), |(head, tail)| (head, Some(tail.trim())));
        let words: Vec<&str> = head.split_whitespace().collect();
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no number"));
        match (&words[..], tail) {
            (["upstream", name, qtype, options @ ..], Some(tail)) => {
                let takes = match options {
                    [] => Duration::ZERO,
                    ["takes", time] => duration(time)?,
                    _ => return Err(format!("`{head}` asks for what is not known")),
                };
                let says = if tail == "fails" { None } else { Some(response(tail)?) };
                Ok(Step::Upstream { name: name.to_lowercase(), qtype: record_type(qtype)?, takes, says })
            }
            (["ask", name, qtype, options @ ..], Some(tail)) => {
                let (query, id) = query(name, qtype, options)?;
                Ok(Step::Ask { query, id, expected: expectations(tail)? })
            }
            (["every", pause, "for", length, "ask", ..], Some(_)) => {
                let ask = text.split_once(" ask ").map_or("", |(_, ask)| ask);
                let step = Box::new(Step::parse(&format!("ask {ask}"))?);
                Ok(Step::Every { pause: duration(pause)?, length: duration(length)?, step })
            }
            (["reply", id], Some(tail)) => {
                Ok(Step::Reply { id: (*id).to_owned(), expected: expectations(tail)? })
            }
            (["wait", time], None) => Ok(Step::Wait(duration(time)?)),
            (["asked", count], None) => Ok(Step::Asked(number(count)?)),
            (["entries", store @ ("success" | "denial"), count @ ..], None) => {
                let (least, most) = match count {
                    ["<=", most] => (0, number(most)?),
                    [count] => (number(count)?, number(count)?),
                    _ => return Err(format!("`{head}` is no count")),
                };
                Ok(Step::Entries { denial: *store == "denial", least, most })
            }
            (["flood", count, name, qtype], None) => Ok(Step::Flood {
                count: number(count)?,
                name: (*name).to_owned(),
                qtype: record_type(qtype)?,
            }),
            _ => Err(format!("`{text}` is no step")),
        }
    }
}

fn query(name: &str, qtype: &str, options: &[&str]) -> Result<(Query, Option<String>), String> {
    let mut query = Query { name: name.to_owned(), qtype: record_type(qtype)?, ..Query::default() };
    let mut id = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "do" => query.dnssec_ok = true,
            "cd" => query.checking_disabled = true,
            "ad" => query.authentic_data = true,
            "no-rd" => query.without_recursion = true,
            "edns" => {
                let size = options.next().and_then(|size| size.parse().ok());
                query.edns = Some(size.ok_or("edns has no size")?);
            }
            "class" if options.next() == Some(&"CH") => query.chaos = true,
            "as" => id = options.next().map(|id| (*id).to_owned()),
            other => return Err(format!("`{other}` is no option of a query")),
        }
    }
    Ok((query, id))
}

fn response(text: &str) -> Result<Response, String> {
    let mut parts = text.split(';').map(str::trim);
    let mut words = parts.next().unwrap_or("").split_whitespace();
    let mut response = Response { rcode: rcode(words.next().unwrap_or(""))?, ..Response::default() };
    while let Some(word) = words.next() {
        match word {
            "aa" => response.authoritative = true,
            "ad" => response.authentic = true,
            "tc" => response.truncated = true,
            "instead" => response.instead = words.next().map(str::to_owned),
            other => return Err(format!("`{other}` is nothing an upstream says")),
        }
    }
    for record in parts {
        let (section, record) = match record.split_once(' ') {
            Some(("authority", record)) => (1, record),
            Some(("additional", record)) => (2, record),
            _ => (0, record),
        };
        let (times, record) = match record.split_once(" * ") {
            Some((times, record)) => (times.parse().map_err(|_| format!("`{times}` is no number"))?, record),
            None => (1, record),
        };
        response.sections[section].extend(vec![Entry::parse(record)?; times]);
    }
    Ok(response)
}

fn expectations(text: &str) -> Result<Vec<Expectation>, String> {
    text.split(',').map(|text| expectation(text.trim())).collect()
}

fn expectation(text: &str) -> Result<Expectation, String> {
    let count = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    Ok(match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["hit"] => Expectation::Hit,
        ["miss"] => Expectation::Miss,
        ["pending"] => Expectation::Pending,
        ["ttl", ttl] => Expectation::Ttl(ttl.parse().map_err(|_| format!("`{ttl}` is no TTL"))?),
        ["answers", answers] => Expectation::Answers(count(answers)?),
        ["records", records] => Expectation::Records(count(records)?),
        ["ede", code] => Expectation::Ede(code.parse().map_err(|_| format!("`{code}` is no code"))?),
        ["data", data] => Expectation::Data(data.to_owned()),
        ["no", word] => Expectation::Flag(flag(word)?, false),
        [word] => match flag(word) {
            Ok(flag) => Expectation::Flag(flag, true),
            Err(_) => Expectation::Rcode(rcode(word)?),
        },
        _ => return Err(format!("`{text}` is nothing to expect")),
    })
}

fn flag(word: &str) -> Result<Flag, String> {
    match word {
        "aa" => Ok(Flag::Authoritative),
        "ad" => Ok(Flag::Authentic),
        "tc" => Ok(Flag::Truncated),
        _ => Err(format!("`{word}` is no flag")),
    }
}

fn rcode(word: &str) -> Result<u8, String> {
    let code = RCODES.iter().position(|name| *name == word);
    code.map(|code| code as u8).ok_or(format!("`{word}` is not known here"))
}

/// Reads `1.5s`, `500ms`, `20m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let seconds = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}` has no unit")),
    };
    let count: f64 = text[..digits].parse().map_err(|_| format!("`{text}` is no time"))?;
    Ok(Duration::from_secs_f64(count * seconds))
}
