//! Runs from their request to their end, on a real bus and over real HTTP. Only the model is played.

mod crash;
mod straight;
