//! The Corefile as a tree: server blocks, directives, options.
//!
//! ```text
//! text -- lexer --> lexemes -- cursor (imports, variables, limits) -- parser --> Corefile
//! ```

mod cursor;
mod lexer;
mod parser;
mod render;
mod source;
#[cfg(test)]
mod tests;

pub use parser::parse;
pub use render::render;
pub use source::{FileId, Position, Source, Sources, Span};

/// Bounds on what one Corefile may expand to; more is refused, never cut.
pub mod limits {
    /// Imports within imports.
    pub const IMPORT_DEPTH: usize = 16;
    /// Words and braces after every import was followed.
    pub const TOKENS: usize = 100_000;
    /// Bytes of every file read, and bytes of every word after expansion (a ConfigMap holds 1 MiB).
    pub const BYTES: usize = 4 << 20;
    /// Files one `import` pattern may name.
    pub const FILES: usize = 1000;
    /// Braces within braces.
    pub const NESTING: usize = 16;
}

/// One word, with variables and import arguments already replaced.
#[derive(Debug, Clone, Eq)]
pub struct Word {
    /// The word, without its quotes.
    pub text: String,
    /// Whether it stood in quotes.
    pub quoted: bool,
    /// Where it stands.
    pub span: Span,
}

/// Two words are equal when they mean the same, wherever they stand.
impl PartialEq for Word {
    fn eq(&self, other: &Word) -> bool {
        self.text == other.text
    }
}

/// A directive of a server block, or an option inside a directive's braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The first word of the line.
    pub name: Word,
    /// The words after it.
    pub args: Vec<Word>,
    /// The lines in braces; `None` when there are no braces.
    pub body: Option<Vec<Directive>>,
}

impl Directive {
    /// The lines in braces, empty without braces.
    pub fn options(&self) -> &[Directive] {
        self.body.as_deref().unwrap_or_default()
    }
}

/// A server block: `LABEL... { DIRECTIVE... }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Zones, as written, with their ports.
    pub labels: Vec<Word>,
    /// The directives in order.
    pub directives: Vec<Directive>,
}

/// A parsed Corefile, imports and snippets in place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corefile {
    /// The server blocks in order.
    pub blocks: Vec<Block>,
}

impl Corefile {
    /// Every directive at the top of a block.
    pub fn directives(&self) -> impl Iterator<Item = &Directive> {
        self.blocks.iter().flat_map(|block| &block.directives)
    }
}
