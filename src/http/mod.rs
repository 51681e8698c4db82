//! HTTP: connections, routes, credentials, and the shapes of answers.
//!
//! hyper owns the connections (time-outs, limits, drain), axum the routes. A handler parses, calls a service and
//! renders; everything that all calls have in common is done around it, in [`gate`].

mod api;
mod body;
mod bridge;
mod call;
mod connections;
mod direct;
mod fault;
mod gate;
mod oauth;
mod operations;
mod query;
mod routes;
mod sink;
mod timed;

pub use self::connections::{ConnectionLimits, Connections};
pub use self::direct::{Direct, DirectReply};
pub use self::sink::{ParseSinkAnswerError, Received, SINK_BODY_BYTES_MAX, Sink, SinkAnswer, SinkRules, Verdict};
