//! `template CLASS TYPE [ZONE...] { match REGEX... answer RR... additional RR... authority RR... rcode RCODE
//! fallthrough [ZONE...] }`

use std::sync::LazyLock;

use domain::base::Rtype;

use super::Scope;
use super::arguments::{number, pattern, rcode, zones};
use crate::config::corefile::{Directive, Word};
use crate::plugin::{RecordText, SUPPORTED, Template};
use crate::wire::Name;

const USAGE: &str = "template CLASS TYPE [ZONE...]";
const OPTIONS: &[&str] =
    &["additional", "answer", "authority", "ederror", "fallthrough", "match", "rcode", "upstream"];
const CLASSES: &[(&str, Option<u16>)] =
    &[("IN", Some(1)), ("CS", Some(2)), ("CH", Some(3)), ("HS", Some(4)), ("NONE", Some(254)), ("ANY", None)];

/// What a template without a pattern has. It compiles.
static EVERYTHING: LazyLock<Option<regex::Regex>> = LazyLock::new(|| regex::Regex::new(".*").ok());

pub(super) fn template(directive: &Directive, scope: &mut Scope<'_>) {
    let words = directive.arguments(2..=usize::MAX, USAGE, scope);
    let Some([class, qtype, below @ ..]) = words else { return };
    let (class, qtype) = (class_of(class, scope), type_of(qtype, scope));
    let mut template = Template { zones: zones(below, scope), ..Template::default() };
    for option in directive.options() {
        read(option, &mut template, scope);
    }
    if template.patterns.is_empty() {
        template.patterns.extend(EVERYTHING.clone());
    }
    for option in directive.options() {
        know_groups(option, &template, scope);
    }
    if let (Some(class), Some(qtype)) = (class, qtype) {
        scope.block.steps.templates.push(Template { class, qtype, ..template });
    }
}

fn read(option: &Directive, template: &mut Template, scope: &mut Scope<'_>) {
    let name = option.name.text.as_str();
    match name {
        "match" => {
            let words = option.arguments(1..=usize::MAX, "match REGEX...", scope).unwrap_or_default();
            template.patterns.extend(words.iter().filter_map(|word| pattern(word, scope)));
        }
        "rcode" => {
            let Some([word]) = option.arguments(1..=1, "rcode RCODE", scope) else { return };
            match rcode(word, scope) {
                Some(code @ 0..=15) => template.rcode = code,
                Some(_) => scope.error(word.span, "an extended response code needs EDNS", "take another"),
                None => {}
            }
        }
        "fallthrough" => {
            let below = zones(&option.args, scope);
            template.fallthrough = if option.args.is_empty() { vec![Name::root()] } else { below };
        }
        "ederror" => {
            let words = option.arguments(1..=2, "ederror CODE [TEXT]", scope).unwrap_or_default();
            template.extended_error = words.first().and_then(|word| number(word, 0..=u16::MAX, scope));
            if let Some(text) = words.get(1) {
                scope.warn(text.span, "of `ederror` the code is sent and the text is not");
            }
        }
        // CoreDNS does nothing with it either.
        "upstream" => {}
        "answer" => template.answers.extend(records(option, "answer RECORD...", scope)),
        "additional" => template.additionals.extend(records(option, "additional RECORD...", scope)),
        "authority" => template.authorities.extend(records(option, "authority RECORD...", scope)),
        _ => option.unknown_option(OPTIONS, scope),
    }
}

/// The records of one line, each a word.
fn records(option: &Directive, usage: &str, scope: &mut Scope<'_>) -> Vec<RecordText> {
    let words = option.arguments(1..=usize::MAX, usage, scope).unwrap_or_default();
    let mut records = Vec::new();
    for word in words {
        match RecordText::parse(&word.text) {
            Ok(record) => records.push(record),
            Err(error) => {
                let remedy = match error.is_about_record() {
                    true => "write a record as in a zone file, in quotes: \"{{ .Name }} 60 IN A 192.0.2.1\"",
                    false => SUPPORTED,
                };
                scope.error(word.span, error.to_string(), remedy);
            }
        }
    }
    records
}

/// Reports a group that no pattern of the template has.
fn know_groups(option: &Directive, template: &Template, scope: &mut Scope<'_>) {
    if !["answer", "additional", "authority"].contains(&option.name.text.as_str()) {
        return;
    }
    for word in &option.args {
        let text = RecordText::parse(&word.text).ok();
        if let Some(unknown) = text.and_then(|text| text.unknown_to(&template.patterns)) {
            let message = format!("no `match` of this template has what `{{{{ {unknown} }}}}` asks for");
            let remedy = "write a group into the pattern: (?P<NAME>...), or (...) for a number";
            scope.error(word.span, message, remedy);
        }
    }
}

fn class_of(word: &Word, scope: &mut Scope<'_>) -> Option<Option<u16>> {
    let known = CLASSES.iter().find(|(name, _)| *name == word.text);
    if known.is_none() {
        scope.error(word.span, format!("`{}` is not a class", word.text), "write IN, CH, HS or ANY");
    }
    known.map(|(_, class)| *class)
}

fn type_of(word: &Word, scope: &mut Scope<'_>) -> Option<Option<u16>> {
    match word.text.parse::<Rtype>() {
        Ok(Rtype::ANY) => Some(None),
        Ok(known) => Some(Some(known.to_int())),
        Err(_) => {
            let message = format!("`{}` is not a type of record", word.text);
            scope.error(word.span, message, "write a type such as AAAA, or ANY");
            None
        }
    }
}
