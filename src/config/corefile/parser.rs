//! Lexemes to server blocks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::cursor::Cursor;
use super::lexer::{Kind, Lexeme};
use super::{Block, Corefile, Directive, Source, Span, Word, limits};
use crate::config::environment::Environment;
use crate::config::error::{Diagnostic, Diagnostics};

/// Parses a Corefile and everything it imports.
///
/// Mistakes go to `diagnostics`; the tree holds what could be made out, so that the directives in it
/// can be checked in the same pass.
pub fn parse(root: Source, env: &dyn Environment, diagnostics: &mut Diagnostics) -> Corefile {
    let mut parser =
        Parser { cursor: Cursor::new(root, env, diagnostics), env, diagnostics, snippets: BTreeMap::new() };
    parser.corefile()
}

struct Snippet {
    defined_at: Span,
    lexemes: Rc<[Lexeme]>,
}

struct Parser<'a, 'd> {
    cursor: Cursor<'a>,
    env: &'a dyn Environment,
    diagnostics: &'d mut Diagnostics,
    snippets: BTreeMap<String, Snippet>,
}

impl Parser<'_, '_> {
    fn corefile(&mut self) -> Corefile {
        let mut corefile = Corefile::default();
        while let Some(next) = self.cursor.peek() {
            let span = next.word.span;
            if next.kind == Kind::Close {
                self.next();
                self.error(span, "unexpected }: no block is open", "remove it");
            } else if is_import(next) {
                self.import();
            } else if let Some(block) = self.block(span) {
                corefile.blocks.push(block);
            }
        }
        corefile
    }

    /// A server block; `None` for a snippet definition.
    fn block(&mut self, begin: Span) -> Option<Block> {
        let labels = self.labels();
        if labels.is_empty() {
            self.error(
                begin,
                "a server block without a zone",
                "write the zone before the {, for instance `.:53 {`",
            );
        }
        let opened = self.take(Kind::Open);
        if let [name] = labels.as_slice()
            && let Some(snippet) = snippet_name(name)
        {
            let snippet = snippet.to_owned();
            self.define_snippet(snippet, name.span, opened.is_some());
            return None;
        }
        let directives = match opened {
            Some(open) => self.braced(open.word.span, 1),
            None => self.unbraced(),
        };
        Some(Block { labels, directives })
    }

    /// Zones up to the brace or the line's end; a comma at the end carries on over the line.
    fn labels(&mut self) -> Vec<Word> {
        let mut labels = Vec::new();
        let mut first = true;
        let mut comma: Option<Span> = None;
        while let Some(next) = self.cursor.peek() {
            if next.kind != Kind::Word || (next.first_on_line && !first && comma.is_none()) {
                break;
            }
            let Some(lexeme) = self.next() else { break };
            first = false;
            comma = (!lexeme.word.quoted && lexeme.word.text.ends_with(',')).then_some(lexeme.word.span);
            labels.extend(split_at_commas(lexeme.word));
        }
        if let Some(span) = comma {
            self.error(span, "a zone is due after this comma", "remove the comma");
        }
        labels
    }

    /// The directives of a block written without braces: the rest of the file.
    fn unbraced(&mut self) -> Vec<Directive> {
        let mut directives = Vec::new();
        while let Some(next) = self.cursor.peek() {
            if next.kind == Kind::Close {
                break;
            }
            if is_import(next) {
                self.import();
            } else if let Some(directive) = self.directive(1) {
                directives.push(directive);
            }
        }
        directives
    }

    /// Lines up to the closing brace.
    fn braced(&mut self, open: Span, depth: usize) -> Vec<Directive> {
        let mut lines = Vec::new();
        if depth > limits::NESTING {
            let message = format!("more than {} braces within braces", limits::NESTING);
            self.error(open, &message, "close some of them");
            self.cursor.stop();
        }
        while let Some(next) = self.cursor.peek() {
            if next.kind == Kind::Close {
                self.next();
                return lines;
            }
            if is_import(next) {
                self.import();
            } else {
                lines.extend(self.directive(depth));
            }
        }
        if !self.cursor.stopped() {
            self.error(open, "this { is never closed", "add the closing }");
        }
        lines
    }

    /// A name, its arguments, and its lines in braces.
    fn directive(&mut self, depth: usize) -> Option<Directive> {
        let first = self.next()?;
        if first.kind == Kind::Open {
            self.error(
                first.word.span,
                "a { without a directive before it",
                "remove it, or name the directive",
            );
            self.braced(first.word.span, depth + 1);
            return None;
        }
        let mut args = Vec::new();
        while let Some(next) = self.cursor.peek() {
            if next.kind != Kind::Word || next.first_on_line {
                break;
            }
            args.extend(self.next().map(|lexeme| lexeme.word));
        }
        let body = self.take(Kind::Open).map(|open| self.braced(open.word.span, depth + 1));
        Some(Directive { name: first.word, args, body })
    }

    /// Keeps the lexemes between a snippet's braces for later imports.
    fn define_snippet(&mut self, name: String, defined_at: Span, opened: bool) {
        if !opened {
            self.error(defined_at, "a snippet without a body", "follow it with { ... }");
            return;
        }
        let mut lexemes = Vec::new();
        let mut depth = 1usize;
        while let Some(mut lexeme) = self.cursor.next_raw(self.diagnostics) {
            match lexeme.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth -= 1,
                Kind::Word => {}
            }
            if depth == 0 {
                break;
            }
            // Wherever a snippet is imported, its first word begins a line.
            lexeme.first_on_line |= lexemes.is_empty();
            lexemes.push(lexeme);
        }
        if depth > 0 && !self.cursor.stopped() {
            self.error(defined_at, "this snippet is never closed", "add the closing }");
        }
        let snippet = Snippet { defined_at, lexemes: lexemes.into() };
        if let Some(earlier) = self.snippets.insert(name.clone(), snippet) {
            self.diagnostics.error(
                Diagnostic::at(defined_at, format!("snippet ({name}) is defined twice"))
                    .other(earlier.defined_at, "first defined here")
                    .remedy("rename one of them"),
            );
        }
    }

    /// `import NAME|FILE|PATTERN [ARGUMENTS...]`.
    fn import(&mut self) {
        let Some(import) = self.next() else { return };
        let Some(target) = self.cursor.argument(self.diagnostics) else {
            self.error(
                import.word.span,
                "import takes the name of a snippet or a file",
                "name what to import",
            );
            return;
        };
        let mut args = Vec::new();
        while let Some(word) = self.cursor.argument(self.diagnostics) {
            args.push(word.text);
        }
        if let Some(snippet) = self.snippets.get(&target.text) {
            let lexemes = Rc::clone(&snippet.lexemes);
            self.cursor.enter_snippet(&target, lexemes, args, self.diagnostics);
            return;
        }
        match self.imported_files(&target) {
            Ok(files) => self.cursor.enter_files(&files, target.span, args, self.diagnostics),
            Err(error) => self.diagnostics.error(*error),
        }
    }

    /// The files a path or pattern stands for; a pattern may stand for none.
    fn imported_files(&self, target: &Word) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
        let text = target.text.as_str();
        let refuse = |message: String, remedy| {
            let error = Diagnostic::at(target.span, message).remedy(remedy);
            Err(Box::new(error))
        };
        if text.is_empty() {
            return refuse("import of an empty name".to_owned(), "is the variable in it set?");
        }
        let is_pattern = text.contains(['*', '?', '[']);
        for directory in &self.diagnostics.sources.get(target.span.file).directories {
            let path = directory.join(text);
            let found = if is_pattern {
                self.matching_files(target, &path)?
            } else if self.env.read(&path, 0).is_ok() {
                vec![path]
            } else {
                Vec::new()
            };
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if is_pattern {
            return Ok(Vec::new());
        }
        refuse(
            format!("there is neither a snippet nor a file `{text}` to import"),
            "check the path, or write a pattern such as `dir/*.server`, which may match nothing",
        )
    }

    fn matching_files(&self, target: &Word, path: &Path) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
        let broken = |why: &str| {
            let message = format!("`{}` is not a usable pattern: {why}", target.text);
            let error = Diagnostic::at(target.span, message);
            Box::new(error.remedy("use one * per path component"))
        };
        if target.text.contains("**") {
            return Err(broken("** would walk whole directory trees"));
        }
        let pattern = path.to_string_lossy();
        let files = self.env.glob(&pattern).map_err(|error| broken(error.msg))?;
        if files.len() > limits::FILES {
            let why = format!("it matches more than {} files", limits::FILES);
            return Err(broken(&why));
        }
        Ok(files)
    }

    fn next(&mut self) -> Option<Lexeme> {
        self.cursor.next(self.diagnostics)
    }

    fn take(&mut self, kind: Kind) -> Option<Lexeme> {
        if self.cursor.peek()?.kind == kind {
            return self.next();
        }
        None
    }

    fn error(&mut self, span: Span, message: &str, remedy: &str) {
        self.diagnostics.error(Diagnostic::at(span, message).remedy(remedy));
    }
}

fn is_import(lexeme: &Lexeme) -> bool {
    lexeme.kind == Kind::Word && !lexeme.word.quoted && lexeme.word.text == "import"
}

fn snippet_name(label: &Word) -> Option<&str> {
    let inner = label.text.strip_prefix('(')?.strip_suffix(')')?;
    (!label.quoted).then_some(inner)
}

/// `a,b` is two labels; an empty one (an unset variable) is none.
fn split_at_commas(word: Word) -> Vec<Word> {
    let pieces: Vec<&str> = match word.quoted {
        true => vec![&word.text],
        false => word.text.split(',').collect(),
    };
    let whole = pieces.len() == 1;
    let mut offset = 0;
    let mut labels = Vec::new();
    for piece in pieces {
        let start = word.span.start + if whole { 0 } else { offset };
        offset += piece.len() + 1;
        if piece.is_empty() {
            continue;
        }
        // A replaced variable can be longer than its placeholder.
        let inside = !whole && start + piece.len() <= word.span.end;
        let span = if inside { Span { start, end: start + piece.len(), ..word.span } } else { word.span };
        labels.push(Word { text: piece.to_owned(), quoted: word.quoted, span });
    }
    labels
}
