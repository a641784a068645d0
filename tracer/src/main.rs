//! `portchurn`: parse, run, print the error chain once, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use tracer::cli::{self, Cli, Command, exit};
use tracer::demo;
use tracer::run;

fn main() -> ExitCode {
    if let Some(code) = role() {
        return code;
    }
    let cli = Cli::parse();
    run::stderr_log::init();
    ExitCode::from(match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portchurn: {error:#}");
            if refused(&error) { exit::REFUSED } else { exit::FAILED }
        }
    })
}

fn refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<run::StartError>().is_some()
}

/// The demo starts this executable again for its workload, which is no command of ours.
fn role() -> Option<ExitCode> {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (demo::ROLE, role) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest))? else { return None };
    Some(match demo::role_main(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portchurn demo: {error:#}");
            ExitCode::from(exit::FAILED)
        }
    })
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    let bare = Command::Live(cli::LiveArgs::default());
    let command = cli.command.as_ref().unwrap_or(&bare);
    match command {
        Command::Live(args) => match cli::filter(&args.filter) {
            Ok(filter) => run::view::live(args, filter)?,
            Err(error) => return Ok(usage(&error)),
        },
        Command::Report(args) => {
            let (file, words) = run::split_file(&args.words);
            match cli::filter(words) {
                Ok(filter) => run::report(args, file.as_deref(), filter.as_ref())?,
                Err(error) => return Ok(usage(&error)),
            }
        }
        Command::Replay(args) => match cli::filter(&args.filter) {
            Ok(filter) => run::view::replay(args, filter)?,
            Err(error) => return Ok(usage(&error)),
        },
        Command::Export(args) => run::export::run(args)?,
        Command::Diff(args) => run::diff::run(args)?,
        Command::Check(args) => return run::check::run(args),
        Command::Record(args) => return run::record::run(args),
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
