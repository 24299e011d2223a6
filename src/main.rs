//! Parse, run, print the fault in one line, exit with its code.

use clap::Parser;
use ssl3d::cli::Cli;
use ssl3d::commands::{self, progress};
use ssl3d::device::exhaustion;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: exhaustion::Allocator = exhaustion::Allocator;

// Before libtorch's own initialisers, which need memory, too.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".preinit_array")]
static EARLY: extern "C" fn() = exhaustion::end_at_exceptions;

fn main() -> ExitCode {
    exhaustion::end_at_panics();
    let (verbose, outcome) = match Cli::try_parse() {
        Ok(cli) => (cli.verbose, commands::run(cli)),
        Err(wrong) if wrong.use_stderr() => {
            let _ = wrong.print();
            return ExitCode::from(wrong.exit_code() as u8);
        }
        Err(help) => {
            progress::printed(help.print());
            (false, progress::output_outcome())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::fault(&error, verbose);
            ExitCode::from(error.exit_code())
        }
    }
}
