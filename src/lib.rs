//! Lutine: an events appliance for insurers.
pub mod domain;
pub mod store;
