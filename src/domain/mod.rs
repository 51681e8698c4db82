//! Words and rules of Lutine.
//!
//! Nothing in here does I/O or waits; time and chance are arguments. Whoever needs a
//! format (stored records, JSON) makes it in its own layer.

pub mod client;
pub mod clock;
pub mod clock_guard;
pub mod company;
pub mod cursor;
pub mod egress;
pub mod event;
pub mod filter;
pub mod health;
pub mod key;
pub mod nearest;
pub mod notification;
pub mod ordering;
pub mod profile;
pub mod proxy;
pub mod reference;
pub mod retry;
pub mod scope;
pub mod subscription;
pub mod text;
pub mod time;
pub mod token;
