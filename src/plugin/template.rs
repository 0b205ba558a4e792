//! Replies made up here (the semantics of CoreDNS's `template`, without records).

use super::config::Template;
use super::reply;
use crate::wire::{Query, Rcode, write_text};

/// What a template says about a query.
enum Verdict {
    /// This response code.
    Reply(Rcode),
    /// Nothing: ask the next one.
    Pass,
}

/// The reply to `message`, a whole query for `name` (folded wire octets), by the first of `templates` that
/// it concerns; `None` when the upstream is to be asked.
pub(super) fn reply(templates: &[Template], message: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    if templates.is_empty() {
        return None;
    }
    let query = Query::parse(message).ok()?;
    let rcode = templates.iter().find_map(|template| match template.judge(&query, name) {
        Verdict::Reply(rcode) => Some(rcode),
        Verdict::Pass => None,
    })?;
    Some(reply::compose(&query, rcode, &[]))
}

impl Template {
    fn judge(&self, query: &Query<'_>, name: &[u8]) -> Verdict {
        let fits = |wanted: Option<u16>, asked| wanted.is_none_or(|wanted| asked == wanted || asked == ANY);
        let below = self.zones.is_empty() || self.zones.iter().any(|zone| zone.contains(name));
        if !below || !fits(self.class, query.qclass()) || !fits(self.qtype, query.qtype()) {
            return Verdict::Pass;
        }
        let mut text = String::new();
        // A String takes everything.
        let _ = write_text(name, &mut text);
        if self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.is_match(&text)) {
            return Verdict::Reply(Rcode(self.rcode));
        }
        match self.fallthrough.iter().any(|zone| zone.contains(name)) {
            true => Verdict::Pass,
            false => Verdict::Reply(Rcode::SERVFAIL),
        }
    }
}

/// QTYPE and QCLASS `ANY` (RFC 1035 §3.2.3, §3.2.5).
const ANY: u16 = 255;
