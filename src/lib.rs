//! Lutine: an events appliance for insurers.
pub mod catalog;
pub mod config;
pub mod domain;
pub mod store;
pub mod wire;
