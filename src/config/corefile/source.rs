//! The texts a Corefile is made of, and places in them.

use std::path::PathBuf;

/// Which text of [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(usize);

/// A range of octets in one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The text.
    pub file: FileId,
    /// First octet.
    pub start: usize,
    /// One past the last octet.
    pub end: usize,
}

/// A line and column, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What messages call it.
    pub name: String,
    /// Directories in which its relative `import`s are looked up, first match wins.
    pub directories: Vec<PathBuf>,
    /// The text.
    pub text: String,
}

/// Every text read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a text.
    pub fn add(&mut self, source: Source) -> FileId {
        self.0.push(source);
        FileId(self.0.len() - 1)
    }

    /// The text behind an id that [`add`](Sources::add) gave.
    pub fn get(&self, file: FileId) -> &Source {
        &self.0[file.0]
    }

    /// Where a span begins.
    pub fn position(&self, span: Span) -> Position {
        let before = &self.get(span.file).text[..span.start];
        Position {
            line: before.matches('\n').count() + 1,
            column: self.line_before(span).chars().count() + 1,
        }
    }

    /// The line a span begins on, and the span within it, cut at the line's end.
    pub fn line(&self, span: Span) -> (&str, std::ops::Range<usize>) {
        let text = &self.get(span.file).text;
        let begin = span.start - self.line_before(span).len();
        let line = text[begin..].lines().next().unwrap_or_default();
        let start = (span.start - begin).min(line.len());
        (line, start..(span.end - begin).clamp(start, line.len()))
    }

    /// `NAME:LINE`.
    pub fn place(&self, span: Span) -> String {
        format!("{}:{}", self.get(span.file).name, self.position(span).line)
    }

    fn line_before(&self, span: Span) -> &str {
        let before = &self.get(span.file).text[..span.start];
        before.rsplit('\n').next().unwrap_or_default()
    }
}
