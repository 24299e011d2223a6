//! Parse, run, print the fault in one line, exit with its code.

use clap::Parser;
use ssl3d::cli::Cli;
use ssl3d::commands::{self, progress::one_line};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbose = cli.verbose;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ssl3d: {}", one_line(&error.to_string()));
            let mut cause = std::error::Error::source(&error);
            while let (true, Some(deeper)) = (verbose, cause) {
                eprintln!("  because: {deeper}");
                cause = deeper.source();
            }
            ExitCode::from(error.exit_code())
        }
    }
}
