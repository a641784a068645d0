//! A terminal for the full-screen view: tmux, with one server per test.
//!
//! The program under test runs in a shell that prints how it ended, so that a test sees whether the program restored
//! the terminal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{output, until};

/// Limit until a screen shows what the test expects, with the time to attach the programs.
const LIMIT: Duration = Duration::from_secs(60);

/// Prints whether the terminal edits lines and echoes keys, as a shell needs it.
const MODES: &str = "stty -a | tr ' ;' '\\n' | grep -x -e echo -e -echo -e icanon -e -icanon | xargs echo modes:";

/// One window of one tmux server; dropping it ends both.
#[derive(Debug)]
pub struct TestTerminal {
    socket: PathBuf,
    dir: PathBuf,
}

impl TestTerminal {
    /// Starts `command` (for a POSIX shell) in a terminal of `size` columns and lines, in the directory `dir`.
    pub fn start(dir: &Path, name: &str, size: (u16, u16), command: &str) -> Result<Self> {
        let screen = Self { socket: dir.join(format!("{name}.tmux")), dir: dir.to_path_buf() };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        // The shell stays, so that its screen can be read. It has no prompt, which a test could mistake for output.
        let script = format!("cd '{}'; {command}; echo \"ended with $?\"; {MODES}; exec sleep 600", dir.display());
        let arguments =
            ["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, "--", "sh", "-c", &script];
        output(screen.tmux().args(arguments)).context("starting tmux")?;
        // Accept what programs put into the clipboard.
        output(screen.tmux().args(["set-option", "-s", "set-clipboard", "on"]))?;
        Ok(screen)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        // The capabilities of the terminal must not depend on the environment of the test.
        command.env_remove("NO_COLOR").env("TERM", "xterm-256color").current_dir(&self.dir);
        command
    }

    /// Presses keys, named as tmux names them (`Enter`, `Escape`, `Tab`, `q`, ...).
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            output(self.tmux().args(["send-keys", key])).with_context(|| format!("pressing {key}"))?;
        }
        Ok(())
    }

    /// Types text literally.
    pub fn type_text(&self, text: &str) -> Result<()> {
        output(self.tmux().args(["send-keys", "-l", text])).map(drop)
    }

    /// Clicks with the left button; column and line are counted from 0.
    pub fn click(&self, column: usize, line: usize) -> Result<()> {
        // SGR mouse reports, as a terminal sends them.
        let report = |end: char| format!("\u{1b}[<0;{};{}{end}", column + 1, line + 1);
        self.type_text(&report('M'))?;
        self.type_text(&report('m'))
    }

    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        output(self.tmux().args(["resize-window", "-x", &width, "-y", &height])).map(drop)
    }

    /// The text on the screen.
    pub fn text(&self) -> Result<String> {
        output(self.tmux().args(["capture-pane", "-p"]))
    }

    /// The text on the screen with its escape sequences.
    pub fn coloured(&self) -> Result<String> {
        output(self.tmux().args(["capture-pane", "-p", "-e"]))
    }

    /// Waits until `look` accepts the screen, and returns the screen.
    pub fn wait(&self, what: &str, look: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let found = until(what, LIMIT, || {
            last = self.text()?;
            Ok(look(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("the screen:\n{last}"))
    }

    /// Waits until the screen shows all of these texts.
    pub fn shows(&self, texts: &[&str]) -> Result<String> {
        self.wait(&format!("{texts:?}"), |screen| texts.iter().all(|text| screen.contains(text)))
    }

    /// The number behind `label` on the screen, thousands separators left out.
    pub fn number(&self, label: &str) -> Result<u64> {
        number(&self.text()?, label)
    }

    /// The text that a program last put into the clipboard.
    pub fn clipboard(&self) -> Result<String> {
        output(self.tmux().arg("show-buffer"))
    }

    /// Waits until the program has ended with this code, and checks that it restored the terminal: no alternate screen,
    /// no mouse reports, a cursor, line editing and echo.
    pub fn given_back(&self, code: i32) -> Result<String> {
        let ended = format!("ended with {code}");
        let text = self.shows(&[&ended, "modes: icanon echo"])?;
        let flags = "#{alternate_on} #{mouse_any_flag} #{cursor_flag}";
        let flags = output(self.tmux().args(["display-message", "-p", flags]))?;
        ensure!(flags.trim() == "0 0 1", "alternate screen, mouse, cursor: {flags}");
        Ok(text)
    }

    /// Closes the terminal under the running program, as a lost ssh connection does.
    pub fn hang_up(&self) -> Result<()> {
        output(self.tmux().arg("kill-server")).map(drop)
    }

    /// Process id of the program called `name` in this terminal.
    pub fn pid_of(&self, name: &str) -> Result<u32> {
        let shell = output(self.tmux().args(["display-message", "-p", "#{pane_pid}"]))?;
        let shell: u32 = shell.trim().parse().context("the shell's pid")?;
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).context("children")?;
        for child in children.split_whitespace() {
            if fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == name) {
                return child.parse().context("a pid");
            }
        }
        bail!("no {name} among {children}")
    }

    /// Writes the screen with its escape sequences to a file, for `cargo xtask screenshots`.
    pub fn keep(&self, directory: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join(format!("{name}.ansi")), self.coloured()?).context("keeping a screen")
    }
}

impl Drop for TestTerminal {
    fn drop(&mut self) {
        // The command fails if the server has ended already, which is the wanted state.
        let _ = self.tmux().arg("kill-server").output();
    }
}

/// The number behind `label`.
pub fn number(screen: &str, label: &str) -> Result<u64> {
    let (_, rest) = screen.split_once(label).with_context(|| format!("{label:?} on the screen:\n{screen}"))?;
    let digits: String =
        rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
    digits.parse().with_context(|| format!("a number behind {label:?} on the screen:\n{screen}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        assert_eq!(number("3 Failures 1,204]", "Failures").expect("a number"), 1_204);
        assert!(number("3 Failures", "Failures").is_err());
        assert!(number("nothing", "Failures").is_err());
    }
}
