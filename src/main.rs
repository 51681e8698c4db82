//! The `lutine` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lutine::cli::main()
}
