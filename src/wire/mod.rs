//! JSON that enters and leaves the process, and nothing else of it.

mod json;
pub mod publish;
