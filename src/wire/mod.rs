//! JSON that enters and leaves the process, and nothing else of it.

pub mod admin;
pub mod bridge;
pub mod clients;
pub mod cloudevents;
pub mod cursors;
pub mod deliveries;
pub mod egress;
pub mod events;
mod json;
mod members;
pub mod oauth;
mod overrides;
pub mod problem;
pub mod publish;
mod receiver_auth;
pub mod references;
pub mod replays;
pub mod sse;
pub mod subscriptions;
