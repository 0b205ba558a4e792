//! DNS messages as bytes (RFC 1035 §4).
//!
//! Client bytes enter as a [`Query`], upstream bytes as an [`Answer`], and everything a client sees
//! leaves through [`Reply`]. Nothing here allocates on the way of a hit, and nothing here is `unsafe`.

mod name;

pub use name::{Name, NameError};
