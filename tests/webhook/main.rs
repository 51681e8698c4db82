//! One attempt outward, against receivers that do what receivers should not. Loopback only.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod certificates;
mod connections;
mod egress;
mod hostile;
mod inspect;
mod profiles;
mod proxy;
mod requests;
mod secure;
mod support;
mod tokens;
