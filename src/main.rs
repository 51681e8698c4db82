//! The `lutine` program; everything is in the library.

use std::process::ExitCode;

/// Events are made ready by the threads that publish and freed by the one that writes, which the system's allocator
/// answers with locks and searches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lutine::cli::main()
}
