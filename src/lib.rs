//! Lutine: an events appliance for insurers.
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
