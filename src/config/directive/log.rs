//! `log [NAME...] [FORMAT] { class success|denial|error|all... }`

use super::Scope;
use super::arguments::zones;
use crate::config::corefile::Directive;
use crate::server::{LogClass, QueryLog};
use crate::wire::Name;

/// `{common}`, also the default.
const COMMON: &str = concat!(
    "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" ",
    "{rcode} {>rflags} {rsize} {duration}"
);

/// One rule per name; without a name the rule is for every name.
///
/// The last word is the format when it holds a `{`, as in CoreDNS; unlike there it may also be the
/// only word.
pub(super) fn log(directive: &Directive, scope: &mut Scope<'_>) {
    let (names, format) = match directive.args.split_last() {
        Some((last, names)) if last.text.contains('{') => (names, last.text.as_str()),
        _ => (directive.args.as_slice(), "{common}"),
    };
    for word in names {
        if matches!(word.text.as_str(), "common" | "combined") {
            let message = format!("`{0}` is taken for a name; the format is {{{0}}}", word.text);
            scope.warn(word.span, message);
        }
    }
    let combined = format!("{COMMON} \"{{>opcode}}\"");
    let format = format.replace("{common}", COMMON).replace("{combined}", &combined);
    let classes = classes(directive, scope);
    let scopes = match names {
        [] => vec![Name::root()],
        names => zones(names, scope),
    };
    scope.block.log.extend(scopes.into_iter().map(|name| QueryLog {
        scope: name,
        format: format.clone(),
        classes: classes.clone(),
    }));
}

fn classes(directive: &Directive, scope: &mut Scope<'_>) -> Vec<LogClass> {
    let mut classes = Vec::new();
    for option in directive.options() {
        if option.name.text != "class" {
            option.unknown_option(&["class"], scope);
            continue;
        }
        let usage = "class success|denial|error|all...";
        for word in option.arguments(1..=usize::MAX, usage, scope).unwrap_or_default() {
            let class = match word.text.as_str() {
                "all" => LogClass::All,
                "success" => LogClass::Success,
                "denial" => LogClass::Denial,
                "error" => LogClass::Error,
                other => {
                    let message = format!("`{other}` is not a class of reply");
                    scope.error(word.span, message, format!("write: {usage}"));
                    continue;
                }
            };
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
    }
    classes
}
