//! The lines of `errors`, one by one or counted together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::config::{Consolidate, ErrorsLog, LogLevel};

/// What `errors` of one block does. Used from the thread of misses.
#[derive(Clone)]
pub struct ErrorLog {
    rules: Arc<[(Consolidate, AtomicU64)]>,
}

impl ErrorLog {
    /// Prepares the rules.
    pub fn new(config: &ErrorsLog) -> ErrorLog {
        ErrorLog { rules: config.consolidate.iter().cloned().map(|rule| (rule, AtomicU64::new(0))).collect() }
    }

    /// Reports `error`, in CoreDNS's words `RCODE NAME TYPE: TEXT`.
    ///
    /// Must be called on a tokio `LocalSet`: the first match of a `consolidate` rule starts its timer.
    pub fn report(&self, error: &str) {
        let Some(index) = self.rules.iter().position(|(rule, _)| rule.pattern.is_match(error)) else {
            write(LogLevel::Error, error);
            return;
        };
        let (rule, count) = &self.rules[index];
        if count.fetch_add(1, Relaxed) > 0 {
            return;
        }
        if rule.show_first {
            write(rule.level, error);
        }
        let (log, period) = (self.clone(), rule.period);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(period).await;
            log.flush(index);
        });
    }

    /// Writes what was counted and not yet written; at the end of the process.
    pub fn flush_all(&self) {
        (0..self.rules.len()).for_each(|index| self.flush(index));
    }

    fn flush(&self, index: usize) {
        let (rule, count) = &self.rules[index];
        match count.swap(0, Relaxed) {
            0 => {}
            1 if rule.show_first => {}
            count => write(
                rule.level,
                &format!("{count} errors like '{}' occurred in last {:?}", rule.pattern, rule.period),
            ),
        }
    }
}

fn write(level: LogLevel, text: &str) {
    match level {
        LogLevel::Error => tracing::error!("plugin/errors: {text}"),
        LogLevel::Warning => tracing::warn!("plugin/errors: {text}"),
        LogLevel::Info => tracing::info!("plugin/errors: {text}"),
        LogLevel::Debug => tracing::debug!("plugin/errors: {text}"),
    }
}
