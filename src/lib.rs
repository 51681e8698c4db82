//! Lutine: an events appliance for insurers. A durable log with a REST API and signed webhooks, in one daemon with one
//! data directory.
//!
//! Layers are folders, capabilities are file names: an event is `domain/event.rs`, `store/page.rs` and its neighbours,
//! `service/events.rs`, `http/api/events.rs`, `cli/events.rs`. A module uses lower rows only, and modules of one row do
//! not know each other; `tests/architecture.rs` holds this.
//!
//! | row | module | what it is |
//! |---|---|---|
//! | 6 | [`cli`] | the commands: over the local socket, over the network, or on a stopped daemon's store |
//! | 5 | [`daemon`] | puts the parts together, runs them until a signal, takes them apart |
//! | 4 | [`http`] | connections, routes, credentials, shapes of answers; the built-in receiver |
//! | 3 | [`service`] | the use cases: publish, read, administer, subscribe |
//! | 3 | [`delivery`] | the engine that owes every event to every subscription that wants it |
//! | 2 | [`store`] | segments of the log, the ledger, the attempt log, and their writers |
//! | 2 | [`webhook`] | one attempt outward: body, signature, access token, egress, connection, answer |
//! | 1 | [`config`], [`wire`], [`telemetry`], [`catalog`] | settings; JSON that enters and leaves; logs and metrics; event types |
//! | 0 | [`domain`] | words and rules; no I/O, no waiting; time and chance are arguments |
//!
//! An event comes in by `http::api::publish` (a CloudEvent too) or `http::bridge`, is checked by `service::events`, made
//! ready and committed by `store` (`prepared`, `queue`, `writer`), and is read back by `store::page`; `service::streams`
//! feeds those who stay. The tail of the log wakes `delivery::engine`, which asks `delivery::core` what is to be attempted,
//! lets `webhook` send it, and hands what came of it to `store::deliveries`. Who calls is found out by `http::gate`: the
//! holder of a key (`service::keys`), or of an access token (`service::tokens`) that `http::oauth` gave to a client.

pub mod catalog;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod domain;
pub mod http;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod webhook;
pub mod wire;
