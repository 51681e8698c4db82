//! What the daemon tells about itself.

pub mod metrics;
