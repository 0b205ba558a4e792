//! Text to words and braces, as the Caddyfile of CoreDNS has them.

use super::{FileId, Span, Word};

/// What a lexeme is to the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything that is not a lone brace.
    Word,
    /// A `{` between blanks.
    Open,
    /// A `}` between blanks.
    Close,
}

/// A word or a brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lexeme {
    /// Word or brace.
    pub kind: Kind,
    /// Its text and place.
    pub word: Word,
    /// Whether a line break stands between it and the lexeme before.
    pub first_on_line: bool,
}

/// The lexemes of `text`, and the place of a quote that is never closed.
///
/// A `#` at the beginning of a word starts a comment that runs to the line's end. Inside quotes only
/// `\"` is an escape; every other backslash stays, so that regular expressions survive.
pub fn lex(text: &str, file: FileId) -> (Vec<Lexeme>, Option<Span>) {
    let mut lexer = Lexer { text, file, at: 0, unclosed: None };
    let mut lexemes = Vec::new();
    while let Some(lexeme) = lexer.next() {
        lexemes.push(lexeme);
    }
    (lexemes, lexer.unclosed)
}

struct Lexer<'a> {
    text: &'a str,
    file: FileId,
    at: usize,
    unclosed: Option<Span>,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<Lexeme> {
        let first = self.at == 0;
        let first_on_line = self.skip_blanks() || first;
        let start = self.at;
        let quoted = self.rest().starts_with('"');
        let text = if quoted { self.quoted() } else { self.bare()? };
        let kind = match text.as_str() {
            "{" if !quoted => Kind::Open,
            "}" if !quoted => Kind::Close,
            _ => Kind::Word,
        };
        let word = Word { text, quoted, span: self.span(start) };
        Some(Lexeme { kind, word, first_on_line })
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn span(&self, start: usize) -> Span {
        Span { file: self.file, start, end: self.at }
    }

    /// Skips blanks, comments and a byte order mark; true if a line ended on the way.
    fn skip_blanks(&mut self) -> bool {
        let mut line_ended = false;
        let mut in_comment = false;
        for c in self.text[self.at..].chars() {
            if c == '\n' {
                line_ended = true;
                in_comment = false;
            } else if c == '#' && !in_comment {
                in_comment = true;
            } else if !in_comment && !c.is_whitespace() && c != '\u{feff}' {
                break;
            }
            self.at += c.len_utf8();
        }
        line_ended
    }

    fn bare(&mut self) -> Option<String> {
        let rest = self.rest();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let text = rest[..end].to_owned();
        self.at += end;
        (!text.is_empty()).then_some(text)
    }

    fn quoted(&mut self) -> String {
        let start = self.at;
        let mut value = String::new();
        let mut escaped = false;
        self.at += 1;
        for c in self.text[self.at..].chars() {
            self.at += c.len_utf8();
            match c {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                '"' if !escaped => return value,
                '"' => {}
                _ if escaped => value.push('\\'),
                _ => {}
            }
            value.push(c);
            escaped = false;
        }
        self.unclosed = Some(Span { file: self.file, start, end: start + 1 });
        value
    }
}
