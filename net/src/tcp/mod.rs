//! TCP (RFC 9293). [`connection`] is the pure machine; [`table`] finds the socket of a segment; [`listener`] opens passively; [`socket`] is what
//! programs see; [`path`](crate::inet) carries segments as packets.

mod acknowledge;
pub mod congestion;
pub mod connection;
mod info;
mod input;
mod output;
mod receive;
pub mod rtt;
pub mod segment;
pub mod seq;
mod timers;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
