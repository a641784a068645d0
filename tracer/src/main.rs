//! `portchurn`: parse, run, print the error chain once, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use tracer::cli::{self, Cli, Command, LiveArgs, exit};
use tracer::demo;
use tracer::run::{self, StartError};

fn main() -> ExitCode {
    // The demo starts this executable again for its workload, which is no command of ours.
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    if let Some((demo::ROLE, role)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return match demo::role_main(role) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("portchurn demo: {error:#}");
                ExitCode::from(exit::FAILED)
            }
        };
    }
    let cli = Cli::parse();
    run::log::init();
    ExitCode::from(match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portchurn: {error:#}");
            if error.downcast_ref::<StartError>().is_some() { exit::REFUSED } else { exit::FAILED }
        }
    })
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    let bare = Command::Live(LiveArgs::default());
    match cli.command.as_ref().unwrap_or(&bare) {
        Command::Live(args) => match cli::filter(&args.filter) {
            Ok(filter) => run::view::live(args, filter)?,
            Err(error) => return Ok(usage(&error)),
        },
        Command::Report(args) => match cli::filter(&args.filter) {
            Ok(filter) => run::report(args, filter.as_ref())?,
            Err(error) => return Ok(usage(&error)),
        },
        Command::Stream(args) => match cli::filter(&args.filter) {
            Ok(filter) => run::stream(args, filter.as_ref())?,
            Err(error) => return Ok(usage(&error)),
        },
        Command::Demo => run::demo::run()?,
        Command::Doctor(args) => return run::doctor::print(args),
    }
    Ok(exit::OK)
}

fn usage(error: &str) -> u8 {
    eprintln!("portchurn: {error}");
    exit::USAGE
}
