//! The promises of the API, asked for over HTTP as a customer would, and read as text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod bridge;
mod clock;
mod cloudevents;
mod command_line;
mod connections;
mod cursors;
mod damage;
mod day;
mod dedupe;
mod keys;
mod lanes;
mod limits;
mod lists;
mod operations;
mod overload;
mod polling;
mod publish;
mod rates;
mod refusals;
mod retention;
mod streams;
mod subscriptions;
mod webhooks;
