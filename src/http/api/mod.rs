//! The native API: Events API and administration.

mod cloudevents;
pub(super) mod companies;
pub(super) mod cursors;
pub(super) mod deliveries;
pub(super) mod events;
pub(super) mod keys;
pub(super) mod publish;
pub(super) mod streams;
pub(super) mod subscriptions;
pub(super) mod system;
