//! What several suites share.
#![allow(dead_code, reason = "each suite uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails the test")]

pub mod netns;
pub mod race;
