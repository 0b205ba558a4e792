//! Every mistake of a configuration, each with its place and a remedy.

use std::fmt;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use super::corefile::{Position, Sources, Span};

/// Errors shown in full; the rest are counted.
const MAX_SHOWN: usize = 100;
/// Octets of a line up to which it is shown; of a longer one only the place is.
const MAX_LINE: usize = 400;

/// One mistake, or one thing worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, without a final full stop.
    pub message: String,
    /// Where; `None` when it concerns the whole configuration.
    pub span: Option<Span>,
    /// Another place that matters, and why.
    pub other: Option<(Span, String)>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn at(span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { span: Some(span), ..Diagnostic::general(message) }
    }

    /// A mistake of the configuration as a whole.
    pub fn general(message: impl Into<String>) -> Diagnostic {
        Diagnostic { message: message.into(), span: None, other: None, remedy: None }
    }

    /// Adds what to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Diagnostic {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds a second place.
    pub fn other(mut self, span: Span, why: impl Into<String>) -> Diagnostic {
        self.other = Some((span, why.into()));
        self
    }
}

/// Every error and warning found in one configuration, with the texts they point into.
///
/// `Display` is the whole report: each error with its line, a caret and a remedy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// The texts.
    pub sources: Sources,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    suppressed: usize,
}

impl Diagnostics {
    /// Records a mistake.
    pub fn error(&mut self, diagnostic: Diagnostic) {
        if self.errors.len() < MAX_SHOWN {
            self.errors.push(diagnostic);
        } else {
            self.suppressed += 1;
        }
    }

    /// Records something that is served but probably not meant.
    pub fn warn(&mut self, diagnostic: Diagnostic) {
        if self.warnings.len() < MAX_SHOWN {
            self.warnings.push(diagnostic);
        }
    }

    /// The mistakes, in the order found.
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// Whether there is no mistake.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The file name and position of a diagnostic.
    pub fn position(&self, diagnostic: &Diagnostic) -> Option<(&str, Position)> {
        let span = diagnostic.span?;
        let name = &self.sources.get(span.file).name;
        Some((name, self.sources.position(span)))
    }

    /// One line per mistake, in CoreDNS's words: `Corefile:7 - Error during parsing: ...`.
    pub fn one_liners(&self) -> Vec<String> {
        let line = |error: &Diagnostic| match error.span {
            Some(span) => format!("{} - Error during parsing: {}", self.sources.place(span), error.message),
            None => format!("Error during parsing: {}", error.message),
        };
        self.errors.iter().map(line).collect()
    }

    /// One line per warning: `Corefile:7: ...`, with the remedy.
    pub fn warning_lines(&self) -> Vec<String> {
        let line = |warning: &Diagnostic| {
            let place = warning.span.map(|span| self.sources.place(span) + ": ");
            let remedy = warning.remedy.as_ref().map(|text| format!("; {text}"));
            [place.as_deref(), Some(&warning.message), remedy.as_deref()].into_iter().flatten().collect()
        };
        self.warnings.iter().map(line).collect()
    }

    fn render(&self, error: &Diagnostic) -> String {
        let mut group = Level::ERROR
            .primary_title(error.message.as_str())
            .elements(error.span.map(|span| self.snippet(span, AnnotationKind::Primary, "")));
        if let Some((span, why)) = &error.other {
            group = group.element(self.snippet(*span, AnnotationKind::Context, why));
        }
        if let Some(remedy) = &error.remedy {
            group = group.element(Level::HELP.message(remedy.as_str()));
        }
        Renderer::plain().render(&[group])
    }

    fn snippet<'a>(&'a self, span: Span, kind: AnnotationKind, label: &'a str) -> Element<'a> {
        let (line, range) = self.sources.line(span);
        let position = self.sources.position(span);
        let path = self.sources.get(span.file).name.as_str();
        if line.len() > MAX_LINE {
            let origin = Origin::path(path).line(position.line);
            return origin.char_column(position.column).into();
        }
        let label = (!label.is_empty()).then_some(label);
        Snippet::source(line)
            .line_start(position.line)
            .path(path)
            .annotation(kind.span(range).label(label))
            .into()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{}\n", self.render(error))?;
        }
        let count = self.errors.len() + self.suppressed;
        let noun = if count == 1 { "error" } else { "errors" };
        write!(f, "{count} {noun}")?;
        if self.suppressed > 0 {
            write!(f, ", the first {MAX_SHOWN} shown")?;
        }
        Ok(())
    }
}
