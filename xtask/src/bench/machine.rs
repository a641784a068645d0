//! The machine that the benches ran on, when they ran, and how idle it was.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::shell::{answer, command};

/// How long the load of the machine is measured before the first bench.
const WATCHED: Duration = Duration::from_secs(3);
/// Load of other programs above which the table says that the machine was not idle.
const QUIET_PERCENT: f64 = 3.0;

pub struct MachineInfo {
    lines: Vec<(&'static str, String)>,
    busy_percent: f64,
}

impl MachineInfo {
    pub fn read() -> Self {
        let busy_percent = busy();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned()))
        };
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let said = |program: &str, arguments: &[&str]| {
            answer(command(program).args(arguments)).map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
        };
        let changed = if said("git", &["status", "--porcelain"]).is_empty() { "" } else { " and uncommitted changes" };
        let lines = vec![
            (
                "machine",
                format!(
                    "{} x {}, {} of memory",
                    cpus,
                    field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown CPU".into()),
                    field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default()
                ),
            ),
            ("kernel", said("uname", &["-srm"])),
            ("compiler", said("rustc", &["--version"])),
            ("date", said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"])),
            ("commit", format!("{}{changed}", said("git", &["rev-parse", "--short=12", "HEAD"]))),
            ("other load", format!("{busy_percent:.1} % of all CPUs in the {} s before", WATCHED.as_secs())),
        ];
        Self { lines, busy_percent }
    }

    pub fn render(&self) -> String {
        let mut text: String = self.lines.iter().flat_map(|(what, value)| ["- ", what, ": ", value, "\n"]).collect();
        if self.busy_percent > QUIET_PERCENT {
            text += "\n**The machine was not idle: these figures are for development only, and a goal that is missed here may be met on a \
                     quiet machine (ratios of one round suffer less than absolute times).**\n";
        }
        text
    }
}

/// Percent of all CPUs' time that other programs used while this one slept.
fn busy() -> f64 {
    let before = times();
    sleep(WATCHED);
    let after = times();
    let (all, idle) = (after.0 - before.0, after.1 - before.1);
    if all > 0.0 { (1.0 - idle / all) * 100.0 } else { 0.0 }
}

/// Ticks since boot: all of them, and the idle ones.
fn times() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|tick| tick.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest times are in user already.
    (ticks.iter().take(8).sum(), ticks.iter().skip(3).take(2).sum())
}
