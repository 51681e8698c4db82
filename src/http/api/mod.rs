//! The native API: Events API and administration.

pub(super) mod clients;
mod cloudevents;
pub(super) mod companies;
pub(super) mod cursors;
pub(super) mod deliveries;
pub(super) mod egress;
pub(super) mod events;
pub(super) mod handshakes;
pub(super) mod keys;
pub(super) mod notifications;
pub(super) mod publish;
pub(super) mod replays;
pub(super) mod streams;
pub(super) mod subscriptions;
pub(super) mod system;
