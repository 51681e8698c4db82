//! JSON that enters and leaves the process, and nothing else of it.

pub mod admin;
pub mod events;
pub mod deliveries;
mod json;
pub mod problem;
pub mod publish;
pub mod subscriptions;
