//! A record to be filled in.

use std::fmt;

use regex::Regex;

use super::expression::{Expression, ExpressionError, Facts};
use super::record::{RecordError, record};
use crate::plugin::tally::Failure;

/// The text of a record, with `{{ EXPRESSION }}`s in it or without.
#[derive(Clone)]
pub struct RecordText(Content);

#[derive(Clone)]
enum Content {
    /// The same for every query: wire octets.
    Fixed(Vec<u8>),
    Pieces(Vec<Piece>),
}

#[derive(Clone)]
enum Piece {
    Text(String),
    Value(Expression),
}

/// Why a text cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordTextError {
    /// Something between braces.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// The record, which is the same for every query.
    #[error("not a record: {0}")]
    Record(#[from] RecordError),
}

impl RecordTextError {
    /// Whether it is the record that is wrong, not what stands between braces.
    pub fn is_about_record(&self) -> bool {
        matches!(self, RecordTextError::Record(_))
    }
}

impl RecordText {
    /// Reads `text`. One without expressions must be a record.
    pub fn parse(text: &str) -> Result<RecordText, RecordTextError> {
        let pieces = pieces(text)?;
        let fixed = pieces.iter().all(|piece| matches!(piece, Piece::Text(_)));
        if fixed {
            return Ok(RecordText(Content::Fixed(record(text)?)));
        }
        // What cannot be a record, whatever the expressions are, is found now.
        let anything = pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::Value(_) => "x",
        });
        if let Err(error @ RecordError::Type(_)) = record(&anything.collect::<String>()) {
            return Err(error.into());
        }
        Ok(RecordText(Content::Pieces(pieces)))
    }

    /// The first expression that none of `patterns` can have a value for.
    pub fn unknown_to(&self, patterns: &[Regex]) -> Option<String> {
        let Content::Pieces(pieces) = &self.0 else { return None };
        pieces.iter().find_map(|piece| match piece {
            Piece::Value(value) if !patterns.iter().any(|pattern| value.fits(pattern)) => {
                Some(value.to_string())
            }
            _ => None,
        })
    }

    /// The record's wire octets, uncompressed; `Err` says why there is none.
    pub(super) fn fill(&self, facts: &Facts<'_>) -> Result<Vec<u8>, (Failure, String)> {
        let pieces = match &self.0 {
            Content::Fixed(wire) => return Ok(wire.clone()),
            Content::Pieces(pieces) => pieces,
        };
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(fixed) => text.push_str(fixed),
                Piece::Value(value) => {
                    value.write(facts, &mut text).map_err(|error| (Failure::Value, error))?
                }
            }
        }
        record(&text).map_err(|error| (Failure::Record, format!("`{text}`: {error}")))
    }
}

/// Splits `text` at its braces; `{{-` and `-}}` take the blanks before and after with them.
fn pieces(text: &str) -> Result<Vec<Piece>, ExpressionError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = closing(after).ok_or(ExpressionError::Unclosed)?;
        let dash = inside.strip_prefix('-').filter(|inner| inner.starts_with(char::is_whitespace));
        let before = if trim { before.trim_start() } else { before };
        let before = if dash.is_some() { before.trim_end() } else { before };
        let inside = dash.unwrap_or(inside);
        let dash = inside.strip_suffix('-').filter(|inner| inner.ends_with(char::is_whitespace));
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Value(Expression::parse(dash.unwrap_or(inside))?));
        trim = dash.is_some();
        rest = after;
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// Splits at the first `}}` that is not in quotes.
fn closing(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some((&text[..at], &text[at + 2..])),
            None => {}
        }
    }
    None
}

impl fmt::Debug for RecordText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for RecordText {
    /// What it says, so that two that say the same look the same; with expressions as CoreDNS prints them.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Fixed(wire) => write!(out, "{wire:?}"),
            Content::Pieces(pieces) => pieces.iter().try_for_each(|piece| match piece {
                Piece::Text(text) => out.write_str(text),
                Piece::Value(value) => write!(out, "{{{{{value}}}}}"),
            }),
        }
    }
}
