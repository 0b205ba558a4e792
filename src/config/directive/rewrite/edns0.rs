//! `edns0 local|nsid|subnet set|append|replace|unset ...`

use super::Scope;
use crate::config::corefile::Word;
use crate::plugin::{Action, OptionEdit};

const USAGE: &str =
    "write: rewrite edns0 local set|append|replace CODE DATA, local unset CODE or nsid set|unset";
/// Name server identifier (RFC 5001 §3).
const NSID: u16 = 3;
/// Client subnet (RFC 7871 §6).
const SUBNET: u16 = 8;

pub(super) fn option(field: &Word, words: &[Word], scope: &mut Scope<'_>) -> Option<Action> {
    let words = match words {
        // Replies have no option of the upstream's in any case.
        [words @ .., last] if last.text == "revert" => words,
        words => words,
    };
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let (code, edit) = match texts[..] {
        ["local", "unset", code] => (number(code), Some(OptionEdit::Unset)),
        ["local", _, _, data] if data.starts_with('{') => {
            let message = format!("`{data}` depends on who asks, and answers are kept for all");
            scope.error(words[3].span, message, "write the octets, or keep this zone on node-cache");
            return None;
        }
        ["local", how, code, data] => (number(code), octets(data).and_then(|octets| edit(how, octets))),
        ["nsid", "unset"] => (Some(NSID), Some(OptionEdit::Unset)),
        ["nsid", how] => (Some(NSID), edit(how, Vec::new())),
        ["subnet", "unset"] => (Some(SUBNET), Some(OptionEdit::Unset)),
        ["subnet", ..] => {
            let message = "a client's subnet is not sent to upstreams: answers are kept for all";
            scope.error(field.span, message, "remove it, or keep this zone on node-cache");
            return None;
        }
        _ => (None, None),
    };
    if let (Some(code), Some(edit)) = (code, edit) {
        return Some(Action::EdnsOption { code, edit });
    }
    scope.error(field.span, "`rewrite edns0` does not say which option gets what", USAGE);
    None
}

fn edit(how: &str, octets: Vec<u8>) -> Option<OptionEdit> {
    Some(match how {
        "set" => OptionEdit::Set(octets),
        "append" => OptionEdit::Append(octets),
        "replace" => OptionEdit::Replace(octets),
        _ => return None,
    })
}

fn number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Digits after `0x`, or the text itself. An option is never longer than a name is.
fn octets(text: &str) -> Option<Vec<u8>> {
    let found = match text.strip_prefix("0x") {
        None => text.as_bytes().to_vec(),
        Some(digits) => {
            let pairs = digits.as_bytes().chunks(2);
            let octet = |pair: &[u8]| match std::str::from_utf8(pair) {
                Ok(text) if text.len() == 2 => u8::from_str_radix(text, 16).ok(),
                _ => None,
            };
            pairs.map(octet).collect::<Option<Vec<u8>>>()?
        }
    };
    (found.len() <= 255).then_some(found)
}
