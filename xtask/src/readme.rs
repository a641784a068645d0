//! Checks the commands of README.md, so that what people copy from it works.
//!
//! In each fenced block marked `console`, lines that start with `$ ` are commands. `cargo xtask ...` must parse as the
//! command line of xtask; `portchurn ...` must be a subcommand whose `--help` knows each flag used. Other commands are
//! not checked.
//!
//! A block marked `console run` is also executed, as root, in an empty directory, with the release build first on the
//! PATH, at most [`TIME_LIMIT`] seconds per command. A command must succeed, or end with the code in its trailing
//! comment (`# exit 4`). The lines below the command are its output, compared by shape: each must occur in the output,
//! in this order. Numbers (also times, addresses and their time units) count as equal, as do runs of blanks. Of a line
//! that ends in `...` only the beginning counts. The README may leave out lines.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::CommandLine;
use crate::shell::{answer, as_root, command, root, say, target_dir};

const README: &str = "README.md";
const TIME_LIMIT: &str = "120";
/// Shell words that end the arguments of a command.
const END_OF_ARGUMENTS: [&str; 9] = ["|", ">", ">>", "2>", "2>&1", "<", "&&", "||", ";"];

#[derive(Debug, Default, PartialEq, Eq)]
struct ConsoleBlock {
    run: bool,
    commands: Vec<DocumentedCommand>,
}

/// A command and its output according to the README.
#[derive(Debug, PartialEq, Eq)]
struct DocumentedCommand {
    line: usize,
    command: String,
    output: Vec<String>,
}

pub fn check(portchurn: &Path) -> Result<()> {
    let text = fs::read_to_string(root().join(README)).with_context(|| format!("reading {README}"))?;
    let blocks = blocks(&text)?;
    let mut commands = 0_usize;
    for (number, block) in blocks.iter().enumerate() {
        for shown in &block.commands {
            exists(&shown.command, portchurn)
                .with_context(|| format!("{README}:{}: `{}`", shown.line, shown.command))?;
            commands += 1;
        }
        if block.run {
            run_block(number, block, portchurn)?;
        }
    }
    ensure!(commands > 0, "{README} has no commands in `console` blocks");
    say(&format!("README: {commands} commands are as {README} says"));
    Ok(())
}

fn blocks(text: &str) -> Result<Vec<ConsoleBlock>> {
    let mut blocks: Vec<ConsoleBlock> = Vec::new();
    let mut inside: Option<(usize, bool)> = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            let words: Vec<&str> = info.split_whitespace().collect();
            let console = words.first() == Some(&"console");
            if inside.is_none() && console {
                blocks.push(ConsoleBlock { run: words.contains(&"run"), commands: Vec::new() });
            }
            inside = if inside.is_some() { None } else { Some((index + 1, console)) };
            continue;
        }
        let (Some((_, true)), Some(block)) = (inside, blocks.last_mut()) else { continue };
        if let Some(typed) = line.trim_start().strip_prefix("$ ") {
            let mut command = typed.trim_end().to_owned();
            while let Some(begun) = command.strip_suffix('\\') {
                let next = lines.next().map(|(_, next)| next.trim()).unwrap_or_default();
                command = format!("{} {next}", begun.trim_end());
            }
            block.commands.push(DocumentedCommand { line: index + 1, command, output: Vec::new() });
        } else if let Some(shown) = block.commands.last_mut() {
            shown.output.push(line.to_owned());
        }
    }
    if let Some((line, _)) = inside {
        bail!("{README}:{line}: a code block that does not end");
    }
    Ok(blocks)
}

/// Fails if the command is one of `portchurn` or xtask and does not exist with these flags.
fn exists(line: &str, portchurn: &Path) -> Result<()> {
    let words = shlex::split(line).context("quotes that do not match")?;
    let words: Vec<&str> = own_arguments(&words);
    match words.as_slice() {
        ["cargo", "xtask", rest @ ..] => match CommandLine::try_parse_from(["cargo xtask"].iter().chain(rest)) {
            Err(error) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                bail!("{}", error.to_string().lines().next().unwrap_or_default())
            }
            _ => Ok(()),
        },
        [program, rest @ ..] if Path::new(program).file_name().is_some_and(|name| name == "portchurn") => {
            let subcommand = rest.first().filter(|word| !word.starts_with('-'));
            let help = answer(command(portchurn).args(subcommand).arg("--help"))
                .with_context(|| format!("there is no `portchurn {}`", subcommand.unwrap_or(&"")))?;
            for flag in rest.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
                ensure!(knows(&help, flag), "its --help does not know {flag}");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The words up to the first `--`, pipe or redirection, without leading `sudo` and variables.
fn own_arguments(words: &[String]) -> Vec<&str> {
    let is_prefix = |word: &&str| *word == "sudo" || *word == "-E" || (word.contains('=') && !word.starts_with('-'));
    let words = words.iter().map(String::as_str).skip_while(is_prefix);
    words.take_while(|word| *word != "--" && !END_OF_ARGUMENTS.contains(word)).collect()
}

/// Whether a help text lists this flag, ignoring a value after `=`.
fn knows(help: &str, flag: &str) -> bool {
    let name = flag.split('=').next().unwrap_or(flag);
    help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).any(|word| word == name)
}

fn run_block(number: usize, block: &ConsoleBlock, portchurn: &Path) -> Result<()> {
    let directory = target_dir().join(format!("readme-{number}"));
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let release = portchurn.parent().context("the release directory")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([release.to_path_buf()].into_iter().chain(std::env::split_paths(&path)))?;
    for shown in &block.commands {
        say(&format!("README: $ {}", shown.command));
        let typed = shown.command.trim_start_matches("sudo ").trim_start_matches("-E ");
        let mut command = as_root("timeout".as_ref(), &[("PATH", &path)])?;
        command.current_dir(&directory).args([TIME_LIMIT, "sh", "-c"]).arg(format!("{{ {typed}\n}} 2>&1"));
        let output = command.output().context("starting sh")?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let place = || format!("{README}:{}: `{}` printed:\n{printed}", shown.line, shown.command);
        let expected = exit_code(&shown.command);
        if output.status.code() != Some(expected) {
            bail!("it ended with {} in place of exit status {expected}; {}", output.status, place());
        }
        same_shape(&shown.output, &printed).with_context(place)?;
    }
    fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))
}

/// `4` of a trailing `# exit 4`, else 0.
fn exit_code(command: &str) -> i32 {
    command.rsplit_once("# exit ").and_then(|(_, code)| code.trim().parse().ok()).unwrap_or(0)
}

fn same_shape(expected: &[String], printed: &str) -> Result<()> {
    let mut printed = printed.lines().map(shape);
    for line in expected {
        let wanted = shape(line);
        if wanted.is_empty() {
            continue;
        }
        let found = match wanted.strip_suffix("...") {
            Some(beginning) => printed.any(|line| line.starts_with(beginning.trim_end())),
            None => printed.any(|line| line == wanted),
        };
        ensure!(found, "no line (any more) like: {line}");
    }
    Ok(())
}

/// A line in which all numbers, with their separators and time units, and all runs of blanks are equal.
fn shape(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let mut masked = String::new();
        for c in word.chars() {
            match c {
                '0'..='9' if masked.ends_with('#') => {}
                '0'..='9'
                    if masked.ends_with(['.', ',', ':']) && masked.trim_end_matches(['.', ',', ':']).ends_with('#') =>
                {
                    masked.truncate(masked.trim_end_matches(['.', ',', ':']).len());
                }
                '0'..='9' => masked.push('#'),
                other => masked.push(other),
            }
        }
        let is_unit = |text: &str| ["ns", "us", "µs", "ms", "s"].contains(&text.trim_end_matches([',', '.', ';', ')']));
        if words.last().is_some_and(|last| last.ends_with('#')) && is_unit(&masked) {
            continue;
        }
        if let Some((number, unit)) = masked.split_once('#')
            && is_unit(unit)
        {
            masked = format!("{number}#");
        }
        words.push(masked);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "text\n```console\n$ cargo xtask demo\n\
        $ sudo portchurn record -o x.arrow \\\n    --for 30s -- curl --silent\nwrote 12 events\n```\n\
        ```toml\n$ not a command\n```\n```console run\n$ portchurn report x.arrow # exit 4\n```\n";

    #[test]
    fn console_blocks_have_commands_and_their_output() {
        let blocks = blocks(SAMPLE).expect("blocks that end");
        assert_eq!(blocks.iter().map(|block| block.run).collect::<Vec<_>>(), [false, true]);
        let [first, second] = blocks[0].commands.as_slice() else { panic!("two commands: {blocks:?}") };
        assert_eq!((first.line, first.command.as_str()), (3, "cargo xtask demo"));
        assert_eq!(second.command, "sudo portchurn record -o x.arrow --for 30s -- curl --silent");
        assert_eq!(second.output, ["wrote 12 events"]);
        assert_eq!(exit_code(&blocks[1].commands[0].command), 4);
        assert!(super::blocks("```console\n$ ls\n").is_err());
    }

    #[test]
    fn tasks_must_exist() {
        let exists = |line| exists(line, Path::new("/nonexistent/portchurn"));
        assert!(exists("cargo xtask e2e local counts --no-skip").is_ok());
        assert!(exists("CI=true cargo xtask ci").is_ok());
        assert!(exists("cargo xtask launch").is_err());
        assert!(exists("cargo xtask setup --fast").is_err());
        assert!(exists("sudo portchurn report").is_err());
        assert!(exists("jq . report.json").is_ok());
    }

    #[test]
    fn only_the_commands_own_arguments_count() {
        let words = |line| shlex::split(line).unwrap_or_default();
        assert_eq!(
            own_arguments(&words("sudo -E portchurn stream --json | jq --raw")),
            ["portchurn", "stream", "--json"]
        );
        assert_eq!(own_arguments(&words("portchurn record -o f -- curl -s x")), ["portchurn", "record", "-o", "f"]);
    }

    #[test]
    fn a_flag_is_a_whole_word_of_the_help() {
        let help = "  -o, --output <FILE>  where to\n      --for <TIME>  how long, e.g. --format";
        assert!(knows(help, "-o") && knows(help, "--for=30s") && knows(help, "--output"));
        assert!(!knows(help, "--out") && !knows(help, "-f") && !knows("--format", "--for"));
    }

    #[test]
    fn shapes_forget_numbers_and_blanks_but_not_words() {
        assert_eq!(shape("10.66.0.2:8443   97 %  1.2 s"), shape("10.66.0.7:443 100 % 900 ms"));
        assert_eq!(shape("took 12ms"), shape("took 1s"));
        assert_ne!(shape("holder: checkout-api"), shape("victim: checkout-api"));
    }

    #[test]
    fn output_must_have_the_shown_lines_in_order() {
        let shown = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let printed = "window 30.1 s\nfailed 812\nholder checkout-api 1,021 ports\n";
        assert!(same_shape(&shown(&["window 9 s", "", "holder checkout-api ..."]), printed).is_ok());
        assert!(same_shape(&shown(&["failed 7", "window 9 s"]), printed).is_err());
        assert!(same_shape(&shown(&["holder other ..."]), printed).is_err());
    }
}
