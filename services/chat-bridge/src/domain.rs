//! What a message means and what an answer looks like, without any chat system, bus or clock.

pub mod address;
pub mod audit;
pub mod catch_up;
pub mod footer;
pub mod inbound;
pub mod patience;
pub mod rules;
pub mod seen;
pub mod split;
pub mod transaction;
