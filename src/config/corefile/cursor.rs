//! The stream of lexemes the parser reads: imports spliced in, variables replaced, growth bounded.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::lexer::{self, Kind, Lexeme};
use super::{Source, Span, Word, limits};
use crate::config::environment::Environment;
use crate::config::error::{Diagnostic, Diagnostics};

/// Where lexemes come from; two equal origins on the stack are an import loop.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Root,
    File(PathBuf),
    Snippet(String),
}

struct Frame {
    origin: Origin,
    lexemes: Rc<[Lexeme]>,
    at: usize,
    /// The other files of the same pattern, last first.
    rest: Vec<(Origin, Rc<[Lexeme]>)>,
    /// Values of `{args[0]}`, `{args[1]}`, ...
    args: Vec<String>,
    imported_at: Option<Span>,
}

/// Reads lexemes across files and snippets.
///
/// After an error that makes reading on pointless the cursor is at its end for good and
/// [`stopped`](Cursor::stopped) says so.
pub struct Cursor<'a> {
    env: &'a dyn Environment,
    frames: Vec<Frame>,
    peeked: Option<Lexeme>,
    tokens: usize,
    bytes: usize,
    stopped: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(root: Source, env: &'a dyn Environment, diagnostics: &mut Diagnostics) -> Self {
        let mut cursor =
            Cursor { env, frames: Vec::new(), peeked: None, tokens: 0, bytes: 0, stopped: false };
        if let Some(lexemes) = cursor.lex(root, None, diagnostics) {
            cursor.push(vec![(Origin::Root, lexemes)], Vec::new(), None);
        }
        cursor
    }

    /// Whether a limit ended reading early.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The next lexeme, expanded, without taking it.
    pub fn peek(&mut self) -> Option<&Lexeme> {
        if self.peeked.is_none() {
            while let Some(frame) = self.frames.last_mut()
                && frame.is_spent()
            {
                if !frame.continue_with_rest() {
                    self.frames.pop();
                }
            }
            self.peeked = self.expanded();
        }
        self.peeked.as_ref()
    }

    /// Takes the next lexeme.
    pub fn next(&mut self, diagnostics: &mut Diagnostics) -> Option<Lexeme> {
        self.peek()?;
        let lexeme = self.peeked.take()?;
        self.advance();
        self.charge(lexeme.word.text.len(), Some(lexeme.word.span), diagnostics).then_some(lexeme)
    }

    /// Takes the next lexeme as it stands in its file, for the body of a snippet.
    pub fn next_raw(&mut self, diagnostics: &mut Diagnostics) -> Option<Lexeme> {
        self.peek()?;
        self.peeked = None;
        let frame = self.frames.last()?;
        let lexeme = frame.lexemes.get(frame.at)?.clone();
        self.advance();
        self.charge(lexeme.word.text.len(), Some(lexeme.word.span), diagnostics).then_some(lexeme)
    }

    /// Takes the next word if it is on the same line of the same file.
    ///
    /// Unlike [`peek`](Cursor::peek) it never leaves a file or snippet that is spent, so that an
    /// `import` on the last line is still seen as part of it.
    pub fn argument(&mut self, diagnostics: &mut Diagnostics) -> Option<Word> {
        if self.peeked.is_none() {
            self.peeked = self.expanded();
        }
        let next = self.peeked.as_ref()?;
        if next.kind != Kind::Word || next.first_on_line {
            return None;
        }
        self.next(diagnostics).map(|lexeme| lexeme.word)
    }

    /// Continues with a snippet's lexemes, then returns to this place.
    pub fn enter_snippet(
        &mut self,
        name: &Word,
        lexemes: Rc<[Lexeme]>,
        args: Vec<String>,
        diagnostics: &mut Diagnostics,
    ) {
        let origin = Origin::Snippet(name.text.clone());
        if self.may_enter(&origin, name.span, diagnostics) {
            self.push(vec![(origin, lexemes)], args, Some(name.span));
        }
    }

    /// Continues with the lexemes of some files in order, then returns to this place.
    pub fn enter_files(
        &mut self,
        paths: &[PathBuf],
        at: Span,
        args: Vec<String>,
        diagnostics: &mut Diagnostics,
    ) {
        let mut texts: Vec<_> =
            paths.iter().filter_map(|path| self.read_file(path, at, diagnostics)).collect();
        texts.reverse();
        if !self.stopped {
            self.push(texts, args, Some(at));
        }
    }

    fn read_file(
        &mut self,
        path: &Path,
        at: Span,
        diagnostics: &mut Diagnostics,
    ) -> Option<(Origin, Rc<[Lexeme]>)> {
        let origin = Origin::File(path.to_owned());
        if self.stopped || !self.may_enter(&origin, at, diagnostics) {
            return None;
        }
        let text = match self.env.read(path, limits::BYTES) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match text {
            Ok(text) => {
                let source = Source {
                    name: path.display().to_string(),
                    directories: path.parent().map(Path::to_owned).into_iter().collect(),
                    text,
                };
                Some((origin, self.lex(source, Some(at), diagnostics)?))
            }
            Err(why) => {
                let message = format!("cannot import {}: {why}", path.display());
                diagnostics.error(Diagnostic::at(at, message).remedy("check the file"));
                None
            }
        }
    }

    fn may_enter(&mut self, origin: &Origin, at: Span, diagnostics: &mut Diagnostics) -> bool {
        if let Some(frame) = self.frames.iter().find(|frame| frame.origin == *origin) {
            let mut error = Diagnostic::at(at, "this import leads back to itself")
                .remedy("remove one of the two imports");
            if let Some(first) = frame.imported_at {
                error = error.other(first, "first imported here");
            }
            diagnostics.error(error);
            self.stop();
            return false;
        }
        // The root is a frame too.
        if self.frames.len() > limits::IMPORT_DEPTH {
            let message = format!("more than {} imports within imports", limits::IMPORT_DEPTH);
            diagnostics.error(Diagnostic::at(at, message).remedy("flatten the imports"));
            self.stop();
            return false;
        }
        true
    }

    fn lex(
        &mut self,
        source: Source,
        imported_at: Option<Span>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Rc<[Lexeme]>> {
        if !self.charge(source.text.len(), imported_at, diagnostics) {
            return None;
        }
        let text = source.text.clone();
        let file = diagnostics.sources.add(source);
        let (lexemes, unclosed) = lexer::lex(&text, file);
        if let Some(span) = unclosed {
            let error = Diagnostic::at(span, "this quote is never closed");
            diagnostics.error(error.remedy("add the closing \""));
        }
        Some(lexemes.into())
    }

    /// Opens a frame over `texts`, last one first.
    fn push(&mut self, mut texts: Vec<(Origin, Rc<[Lexeme]>)>, args: Vec<String>, imported_at: Option<Span>) {
        self.peeked = None;
        let Some((origin, lexemes)) = texts.pop() else {
            return;
        };
        self.frames.push(Frame { origin, lexemes, at: 0, rest: texts, args, imported_at });
    }

    /// The next lexeme of the innermost frame with variables and arguments replaced.
    fn expanded(&self) -> Option<Lexeme> {
        let frame = self.frames.last()?;
        let mut lexeme = frame.lexemes.get(frame.at)?.clone();
        if lexeme.kind == Kind::Word && lexeme.word.text.contains('{') {
            lexeme.word.text = expand(&lexeme.word.text, self.env, &frame.args);
        }
        Some(lexeme)
    }

    fn advance(&mut self) {
        self.peeked = None;
        if let Some(frame) = self.frames.last_mut() {
            frame.at += 1;
        }
    }

    /// Counts one lexeme, or one file, against the limits; false when one is exceeded.
    fn charge(&mut self, bytes: usize, at: Option<Span>, diagnostics: &mut Diagnostics) -> bool {
        self.tokens += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let message = if self.tokens > limits::TOKENS {
            format!("the Corefile expands to more than {} words", limits::TOKENS)
        } else if self.bytes > limits::BYTES {
            format!("the Corefile expands to more than {} bytes", limits::BYTES)
        } else {
            return true;
        };
        let error = match at {
            Some(span) => Diagnostic::at(span, message),
            None => Diagnostic::general(message),
        };
        diagnostics.error(error.remedy("import less, or less often"));
        self.stop();
        false
    }

    /// Ends reading for good.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.frames.clear();
        self.peeked = None;
    }
}

impl Frame {
    fn is_spent(&self) -> bool {
        self.at >= self.lexemes.len()
    }

    /// Turns to the next file of the pattern; false when there is none.
    fn continue_with_rest(&mut self) -> bool {
        let Some((origin, lexemes)) = self.rest.pop() else {
            return false;
        };
        self.origin = origin;
        self.lexemes = lexemes;
        self.at = 0;
        true
    }
}

/// Replaces `{$NAME}`, `{$NAME:default}`, `{%NAME%}` and `{args[0]}` or `{args.0}`, once: what a
/// variable holds is not looked at again. An unset variable is empty.
///
/// The result is cut a little beyond [`limits::BYTES`], where the caller refuses it.
fn expand(text: &str, env: &dyn Environment, args: &[String]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let (value, length) = match placeholder(from, env, args) {
            Some(found) => found,
            None => ("{".to_owned(), 1),
        };
        out.push_str(&value);
        if out.len() > limits::BYTES {
            return out;
        }
        rest = &from[length..];
    }
    out.push_str(rest);
    out
}

/// The value of the placeholder `text` begins with, and the placeholder's length.
fn placeholder(text: &str, env: &dyn Environment, args: &[String]) -> Option<(String, usize)> {
    let variable = |name: &str, default: &str| {
        let value = env.variable(name).filter(|value| !value.is_empty());
        value.unwrap_or_else(|| default.to_owned())
    };
    if let Some(rest) = text.strip_prefix("{%") {
        let end = rest.find("%}")?;
        return Some((variable(&rest[..end], ""), end + 4));
    }
    let end = text.find('}')?;
    let inner = &text[1..end];
    let value = if let Some(name) = inner.strip_prefix('$') {
        let (name, default) = name.split_once(':').unwrap_or((name, ""));
        variable(name, default)
    } else {
        let index = inner.strip_prefix("args")?;
        let index = index.strip_prefix('.').or_else(|| index.strip_prefix('[')?.strip_suffix(']'))?;
        args.get(index.parse::<usize>().ok()?)?.clone()
    };
    Some((value, end + 1))
}
