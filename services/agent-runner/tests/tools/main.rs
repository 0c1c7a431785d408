//! The sandbox, the worktrees and the built-in tools, on real bubblewrap and real git.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can not go on fails")]

mod changing;
mod desk;
mod fixture;
mod hostile;
mod reading;
mod sandbox;
mod worktree;
