//! Writes man pages and completions, which `cargo xtask dist` puts into packages:
//!
//! ```text
//! cargo run -p tracer --example manual -- DIR DATE
//! ```
//!
//! Names, synopsis and options come from the command line's own definition, the rest from `pages.rs`. `DATE` stands in the
//! pages' footer: that of the commit, so that the same source yields the same bytes.

mod pages;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, bold, line_break, roman};
use textwrap::{Options, WordSplitter};

use crate::pages::{COMMON_EXITS, ENVIRONMENT, Named, PAGES, Page};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, date] = arguments.as_slice() else { bail!("usage: manual DIR DATE") };
    write(Path::new(dir), date)
}

fn write(dir: &Path, date: &str) -> Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    for (file, text) in all_pages(date)? {
        fs::write(man.join(&file), text).with_context(|| file)?;
    }
    for shell in SHELLS {
        let path = completions.join(completion_file(shell));
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        clap_complete::generate(shell, &mut tracer::cli::definition(), "portchurn", &mut file);
    }
    Ok(())
}

/// Where a shell looks for it.
fn completion_file(shell: Shell) -> PathBuf {
    match shell {
        Shell::Zsh => "_portchurn".into(),
        Shell::Fish => "portchurn.fish".into(),
        _ => "portchurn".into(),
    }
}

/// Every page with its file name.
fn all_pages(date: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut whole = tracer::cli::definition().disable_help_subcommand(true);
    whole.build();
    let commands: Vec<&Command> = whole.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    let mut pages = vec![page_of(&whole, None, &commands, date)?];
    for command in &commands {
        pages.push(page_of(command, Some(command.get_name()), &commands, date)?);
    }
    Ok(pages)
}

fn page_of(command: &Command, name: Option<&str>, all: &[&Command], date: &str) -> Result<(String, Vec<u8>)> {
    let Some(page) = PAGES.iter().find(|page| page.command == name) else {
        bail!(
            "the command {} has no examples: add a page to tracer/examples/manual/pages.rs",
            name.unwrap_or("itself")
        );
    };
    let title = name.map_or_else(|| "portchurn".to_owned(), |name| format!("portchurn-{name}"));
    let man = Man::new((*command).clone().display_name(title.clone()))
        .title(title.to_uppercase())
        .date(date)
        .source(concat!("portchurn ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    by_hand(command, page, all).to_writer(&mut out)?;
    Ok((format!("{title}.1"), tidy(&String::from_utf8(out)?).into_bytes()))
}

/// The page as `mandoc -Tlint` wants it: short lines without blanks at their end, and no break beside a blank line, where
/// clap_mangen writes both.
fn tidy(page: &str) -> String {
    const COLUMNS: usize = 79;
    let lines: Vec<&str> = page.lines().collect();
    let mut out = String::new();
    let mut verbatim = false;
    for (at, line) in lines.iter().enumerate() {
        let mut beside = [at.checked_sub(1), Some(at + 1)].into_iter().flatten().filter_map(|other| lines.get(other));
        if *line == ".br" && beside.any(|other| other.is_empty() || other.starts_with(".sp")) {
            continue;
        }
        match *line {
            ".nf" => verbatim = true,
            ".fi" => verbatim = false,
            _ => {}
        }
        let line = line.trim_end();
        if verbatim || line.starts_with('.') {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        for wrapped in
            textwrap::wrap(line, Options::new(COLUMNS).word_splitter(WordSplitter::NoHyphenation).break_words(false))
        {
            // A line that begins with one of these is a macro.
            if wrapped.starts_with(['.', '\'']) {
                out.push_str("\\&");
            }
            out.push_str(&wrapped);
            out.push('\n');
        }
    }
    out
}

/// The sections that clap knows nothing of.
fn by_hand(command: &Command, page: &Page, all: &[&Command]) -> Roff {
    let mut roff = Roff::new();
    if page.command.is_none() {
        roff.control("SH", ["COMMANDS"]);
        for command in all {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            entry(&mut roff, &format!("portchurn-{}(1)", command.get_name()), &about);
        }
    } else if let Some(help) = command.get_after_help() {
        // "Filters: ..." or "Conditions: ..."; the lines are aligned, so they stay lines.
        let help = help.to_string();
        let (heading, rest) = help.split_once(':').unwrap_or(("NOTES", &help));
        roff.control("SH", [heading.to_uppercase().as_str()]);
        verbatim(&mut roff, rest.trim_start());
    }
    roff.control("SH", ["EXAMPLES"]);
    for example in page.examples {
        roff.control("TP", []);
        roff.text([bold(example.name)]);
        roff.text([roman(example.says)]);
    }
    section(&mut roff, "FILES", page.files);
    section(&mut roff, "ENVIRONMENT", ENVIRONMENT);
    section(&mut roff, "EXIT STATUS", if page.exits.is_empty() { COMMON_EXITS } else { page.exits });
    roff.control("SH", ["SEE ALSO"]);
    let others = all.iter().map(|command| format!("portchurn-{}", command.get_name()));
    let mut others: Vec<String> = std::iter::once("portchurn".to_owned()).chain(others).collect();
    others.retain(|name| {
        name.strip_prefix("portchurn-") != page.command && (page.command.is_some() || name != "portchurn")
    });
    others.sort_unstable();
    let mut line = Vec::new();
    for name in others.iter().map(String::as_str).chain(["ss"]) {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(name), roman(if name == "ss" { "(8)" } else { "(1)" })]);
    }
    roff.text(line);
    roff
}

fn section(roff: &mut Roff, heading: &str, entries: &[Named]) {
    if entries.is_empty() {
        return;
    }
    roff.control("SH", [heading]);
    for Named { name, says } in entries {
        entry(roff, name, says);
    }
}

fn entry(roff: &mut Roff, name: &str, says: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(says)]);
}

/// Lines as they stand.
fn verbatim(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line), line_break()]);
    }
    roff.control("fi", []);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_an_example_and_no_page_is_left_over() {
        let pages = all_pages("2026-01-31").expect("pages");
        assert_eq!(pages.len(), PAGES.len());
        for (name, text) in pages {
            let text = String::from_utf8(text).expect("text");
            for heading in [".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES", "EXIT STATUS"] {
                assert!(text.contains(heading), "{name} lacks {heading}");
            }
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for page in PAGES {
            for Named { name, .. } in page.examples {
                // What a shell takes for itself: another program in front, a redirection behind.
                let own = name.rsplit("; ").next().unwrap_or(name).rsplit("sudo ").next().unwrap_or(name);
                let own = own.split(" | ").next().unwrap_or(own);
                let words = shlex::split(own).expect("quotes in pairs");
                assert_eq!(words.first().map(String::as_str), Some("portchurn"), "{name}");
                let understood = tracer::cli::definition().try_get_matches_from(&words);
                assert!(
                    understood.is_ok(),
                    "{name}: {}",
                    understood.err().map(|error| error.to_string()).unwrap_or_default()
                );
            }
        }
    }
}
