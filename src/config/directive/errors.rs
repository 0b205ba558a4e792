//! `errors [stdout] { stacktrace; consolidate DURATION REGEXP [LEVEL] [show_first] }`

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Scope;
use super::arguments::{duration, pattern};
use crate::config::corefile::Directive;
use crate::server::{Consolidate, ErrorsLog, LogLevel};

const PERIOD_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

pub(super) fn errors(directive: &Directive, scope: &mut Scope<'_>) {
    if let Some([target]) = directive.arguments(0..=1, "errors [stdout]", scope)
        && target.text != "stdout"
    {
        let message = format!("errors cannot be logged to `{}`", target.text);
        scope.error(target.span, message, "remove it: the log goes to standard output");
    }
    let mut log = ErrorsLog::default();
    for option in directive.options() {
        match option.name.text.as_str() {
            // It prints Go stack traces, of which there are none.
            "stacktrace" => {
                option.arguments(0..=0, "stacktrace", scope);
            }
            "consolidate" => log.consolidate.extend(consolidate(option, scope)),
            _ => option.unknown_option(&["stacktrace", "consolidate"], scope),
        }
    }
    scope.block.errors = Some(log);
}

fn consolidate(option: &Directive, scope: &mut Scope<'_>) -> Option<Consolidate> {
    let usage = "consolidate DURATION REGEXP [warning|error|info|debug] [show_first]";
    let words = option.arguments(2..=4, usage, scope)?;
    let (required, optional) = words.split_at(2);
    let period = duration(&required[0], PERIOD_RANGE, scope);
    let pattern = pattern(&required[1], scope);
    let mut level = LogLevel::default();
    let mut show_first = false;
    for word in optional {
        match word.text.as_str() {
            "error" => level = LogLevel::Error,
            "warning" => level = LogLevel::Warning,
            "info" => level = LogLevel::Info,
            "debug" => level = LogLevel::Debug,
            "show_first" => show_first = true,
            other => {
                let message = format!("`{other}` is neither a log level nor show_first");
                scope.error(word.span, message, format!("write: {usage}"));
            }
        }
    }
    Some(Consolidate { period: period?, pattern: pattern?, level, show_first })
}
