//! JSON that enters and leaves the process, and nothing else of it.

pub mod admin;
pub mod clients;
pub mod deliveries;
pub mod events;
mod json;
pub mod oauth;
pub mod problem;
pub mod publish;
pub mod subscriptions;
