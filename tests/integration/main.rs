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
mod egress;
mod handshake;
mod keys;
mod lanes;
mod limits;
mod lists;
mod oauth;
mod operations;
mod ordering;
mod overload;
mod polling;
mod profiles;
mod publish;
mod rates;
mod references;
mod refusals;
mod replays;
mod retention;
mod rotation;
mod schemas;
mod streams;
mod subscriptions;
mod webhooks;
