//! Replies made up here (the semantics of CoreDNS's `template`).

mod expression;
mod record;
#[cfg(test)]
mod tests;
mod text;

use domain::base::Rtype;
use regex::Regex;

use super::Outcome;
use super::config::Template;
use super::draft::{Draft, Section};
use super::follow::{follow, target};
use super::tally::Tally;
use crate::metrics::AnsweredBy;
use crate::wire::{ExtendedError, Query, Rcode, record_type, write_text};

pub(super) use expression::Facts;
pub use expression::{ExpressionError, SUPPORTED};
pub use record::RecordError;
pub use text::{RecordText, RecordTextError};

/// What a template says about a query.
enum Verdict<'t> {
    /// It speaks, by this pattern, for names below this zone.
    Match(&'t Regex, String),
    /// It speaks, but no pattern matches, and nothing comes after.
    Refuse,
    /// Nothing: ask the next one.
    Pass,
}

/// What becomes of `message`, a whole query for `name` (folded wire octets), by the first of `templates` that
/// it concerns; `None`: what comes after is to be asked. Addresses behind an alias are looked up by `lookup`.
pub(super) async fn reply(
    templates: &[Template],
    message: &[u8],
    name: &[u8],
    tally: Tally<'_>,
    lookup: &mut impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
) -> Option<Outcome> {
    let query = Query::parse(message).ok()?;
    let text = text_of(name);
    for template in templates {
        match template.judge(&query, name, &text) {
            Verdict::Pass => {}
            Verdict::Refuse => return Some(Outcome::Failed(None)),
            Verdict::Match(pattern, zone) => {
                let spelt = text_of(query.name());
                let facts = template.facts(&query, &text, &spelt, pattern, zone);
                tally.matched(&facts);
                if template.rcode == Rcode::SERVFAIL.0 {
                    return Some(Outcome::Failed(None));
                }
                let made = template.make(&query, &facts, tally, lookup).await;
                return Some(match made {
                    Ok(message) => {
                        let told = template.extended_error.map(ExtendedError);
                        Outcome::Reply { message, by: AnsweredBy::Template, told }
                    }
                    Err(error) => Outcome::Failed(Some(format!("plugin/template: {error}"))),
                });
            }
        }
    }
    None
}

impl Template {
    fn judge(&self, query: &Query<'_>, name: &[u8], text: &str) -> Verdict<'_> {
        let fits = |wanted: Option<u16>, asked| wanted.is_none_or(|wanted| asked == wanted || asked == ANY);
        let zones = self.zones.iter().filter(|zone| zone.contains(name));
        let Some(zone) = zones.max_by_key(|zone| zone.as_wire().len()) else {
            return Verdict::Pass;
        };
        if !fits(self.class, query.qclass()) || !fits(self.qtype, query.qtype()) {
            return Verdict::Pass;
        }
        if let Some(pattern) = self.patterns.iter().find(|pattern| pattern.is_match(text)) {
            return Verdict::Match(pattern, zone.to_string());
        }
        match self.fallthrough.iter().any(|zone| zone.contains(name)) {
            true => Verdict::Pass,
            false => Verdict::Refuse,
        }
    }

    fn facts<'f>(
        &self,
        query: &Query<'_>,
        name: &'f str,
        question: &'f str,
        pattern: &'f Regex,
        zone: String,
    ) -> Facts<'f> {
        let (qtype, qclass) = (query.qtype(), query.qclass());
        // Of a question for anything, the template says what it answers.
        let known = |asked, own: Option<u16>| if asked == ANY { own.unwrap_or(ANY) } else { asked };
        let captures = pattern.captures(name);
        let groups = captures.iter().flat_map(|captures| captures.iter());
        Facts {
            name,
            question,
            qtype,
            qclass,
            zone,
            class: class_name(known(qclass, self.class)).to_owned(),
            type_name: type_name(known(qtype, self.qtype)),
            pattern,
            groups: groups.map(|group| group.map_or("", |group| group.as_str())).collect(),
        }
    }

    async fn make(
        &self,
        query: &Query<'_>,
        facts: &Facts<'_>,
        tally: Tally<'_>,
        lookup: &mut impl AsyncFnMut(&[u8], &[u8]) -> Option<Vec<u8>>,
    ) -> Result<Vec<u8>, String> {
        let mut draft = Draft::new(query, Rcode(self.rcode));
        let fill = |text: &RecordText, section: &str| {
            text.fill(facts).map_err(|(failure, error)| {
                tally.failed(failure, facts, section, &text.to_string());
                format!("{section} {error}")
            })
        };
        for text in &self.answers {
            let record = fill(text, "answer")?;
            draft.add(Section::Answer, &record);
            if [record_type::A, record_type::AAAA].contains(&query.qtype())
                && let Some(target) = target(&record)
            {
                let found = follow(query, target, lookup).await;
                found.iter().for_each(|record| draft.add(Section::Answer, record));
            }
        }
        // Whatever the order in the Corefile, a message has one.
        for (section, name, texts) in [
            (Section::Authority, "authority", &self.authorities),
            (Section::Additional, "additional", &self.additionals),
        ] {
            for text in texts {
                draft.add(section, &fill(text, name)?);
            }
        }
        Ok(draft.finish())
    }
}

fn text_of(name: &[u8]) -> String {
    let mut text = String::new();
    // A String takes everything.
    let _ = write_text(name, &mut text);
    text
}

fn class_name(class: u16) -> &'static str {
    match class {
        1 => "IN",
        2 => "CS",
        3 => "CH",
        4 => "HS",
        254 => "NONE",
        ANY => "ANY",
        _ => "",
    }
}

/// Empty where Go's library knows no name.
fn type_name(rtype: u16) -> String {
    Rtype::from_int(rtype).to_mnemonic_str().unwrap_or_default().to_owned()
}

/// QTYPE and QCLASS `ANY` (RFC 1035 §3.2.3, §3.2.5).
const ANY: u16 = 255;
