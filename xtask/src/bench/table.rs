//! Writes the table: what is measured, the figure, its spread, its goal, and why a goal is missed.

use super::figures::{Figures, median};
use super::machine::MachineInfo;
use super::picture;
use super::rows::{BenchRow, Goal};

pub fn render(machine: &MachineInfo, rows: &[&BenchRow], runs: &[Figures]) -> String {
    let mut text = String::from(
        "# What portchurn costs, what it loses, how it scales\n\n\
         Written by `cargo xtask bench`. A ratio compares two things of the same round, with rounds interleaved; a figure is the median of all rounds, \
         in brackets the lowest and the highest. With several runs each run's own median follows. Every goal that is missed says why.\n\n",
    );
    text.push_str(&machine.render());
    text.push_str("\n| what | figure | spread | runs | goal | |\n| --- | ---: | --- | --- | --- | --- |\n");
    let mut section = "";
    for row in rows {
        if row.section() != section {
            section = row.section();
            text.extend(["| **", section, "** | | | | | |\n"]);
        }
        text.push_str(&line(row, runs));
    }
    text + &forecasts(runs) + &growth(runs) + &crate::soak::last_section()
}

fn line(row: &BenchRow, runs: &[Figures]) -> String {
    let each: Vec<Vec<f64>> = runs.iter().filter_map(|run| row.samples(run)).collect();
    let all = each.concat();
    let figure = median(&each.iter().map(|samples| median(samples)).collect::<Vec<_>>());
    let (low, high) = all.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let spread = if all.len() > 1 { format!("[{}, {}]", number(low), number(high)) } else { String::new() };
    let medians = if each.len() > 1 {
        each.iter().map(|samples| number(median(samples))).collect::<Vec<_>>().join(" / ")
    } else {
        String::new()
    };
    let (goal, verdict) = match row.goal() {
        Some(goal) if goal.met(figure) => (goal.text(), "met".to_owned()),
        Some(goal) => (goal.text(), format!("missed by {}: {}", goal.distance(figure), row.cause())),
        None => (String::new(), row.cause().to_owned()),
    };
    format!("| {} | {} {} | {spread} | {medians} | {goal} | {verdict} |\n", row.what(), number(figure), row.unit())
}

impl Goal {
    fn met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {}", number(limit)),
            Self::AtLeast(limit) => format!("at least {}", number(limit)),
        }
    }

    fn distance(self, figure: f64) -> String {
        let (Self::AtMost(limit) | Self::AtLeast(limit)) = self;
        if limit == 0.0 { number(figure) } else { format!("{:.0} %", ((figure - limit) / limit * 100.0).abs()) }
    }
}

/// A number with three significant digits and no exponent.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// The loads of the forecast, one by one.
fn forecasts(runs: &[Figures]) -> String {
    let Some(run) = runs.last().filter(|run| run.samples("forecast.inside").is_some()) else { return String::new() };
    let mut text = String::from(
        "\n## How good forecasts are\n\n\
         Means of the runs. The error is that of the middle of the forecast, in percent of the time that was left, 100 where nothing was forecast; \
         without a number nothing told by then what comes.\n\n\
         | load | out of ports after, s | error 120 s ahead | 60 s | 30 s | 10 s | truth inside, % | announced, s before |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (name, row) in run.beginning("forecast.load.") {
        let cell = |value: &f64| if *value < 0.0 { String::new() } else { number(*value) };
        let cells: Vec<String> = row.iter().map(cell).collect();
        text.extend(["| ", name, " | ", &cells.join(" | "), " |\n"]);
    }
    text.push_str("\n| load that settles | seconds of false alarm | of seconds |\n| --- | ---: | ---: |\n");
    for (name, row) in run.beginning("forecast.settles.") {
        let cells: Vec<String> = row.iter().map(|value| number(*value)).collect();
        text.extend(["| ", name, " | ", &cells.join(" | "), " |\n"]);
    }
    text
}

fn growth(runs: &[Figures]) -> String {
    let Some(run) = runs.last().filter(|run| !run.lines(picture::ONE_CPU).is_empty()) else { return String::new() };
    let mut text = format!(
        "\n## How cost grows\n\n![events per second against CPU and loss]({})\n\n\
         | CPUs | transitions/s | portchurn's process, % of a CPU | its BPF programs, % of a CPU | lost | connect() p50, us | p99, us |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        picture::FILE
    );
    for (name, key) in [("1", picture::ONE_CPU), ("all", picture::ALL_CPUS)] {
        for point in run.lines(key) {
            let cells: Vec<String> = point.iter().map(|value| number(*value)).collect();
            text.extend(["| ", name, " | ", &cells.join(" | "), " |\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_met_at_their_limit_and_missed_by_their_distance() {
        assert!(Goal::AtMost(3.0).met(3.0) && !Goal::AtMost(3.0).met(3.1));
        assert!(Goal::AtLeast(4.0).met(4.0) && !Goal::AtLeast(4.0).met(3.0));
        assert_eq!(Goal::AtLeast(4.0).distance(3.0), "25 %");
        assert_eq!(Goal::AtMost(0.0).distance(7.0), "7.00");
    }

    #[test]
    fn numbers_have_three_digits() {
        let cases = [(0.0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (12345.6, "12346")];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }
}
