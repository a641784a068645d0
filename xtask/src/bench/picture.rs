//! Draws costs by load as one SVG: above, CPU against events per second, with one CPU and with all; below, the lost
//! events.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use super::figures::Figures;

pub const FILE: &str = "scale.svg";
pub const ONE_CPU: &str = "scale.one_cpu";
pub const ALL_CPUS: &str = "scale.all_cpus";

/// Indexes of the members of a point, in the order of `meter`'s scale bench.
const PROCESS: usize = 1;
const PROGRAMS: usize = 2;
const LOST: usize = 3;

pub fn draw(runs: &[Figures], file: &Path) -> Result<()> {
    let run = runs.last().context("no run")?;
    paint(run, file).map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn paint(run: &Figures, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let series = [
        ("process, 1 CPU", ONE_CPU, PROCESS, RED),
        ("BPF programs, 1 CPU", ONE_CPU, PROGRAMS, MAGENTA),
        ("process, all CPUs", ALL_CPUS, PROCESS, BLUE),
        ("BPF programs, all CPUs", ALL_CPUS, PROGRAMS, CYAN),
    ];
    let points = |key: &str, member: usize| -> Vec<(f64, f64)> {
        run.lines(key).iter().filter_map(|point| Some((*point.first()?, *point.get(member)?))).collect()
    };
    let highest = |members: &[usize]| {
        [ONE_CPU, ALL_CPUS]
            .iter()
            .flat_map(|key| members.iter().flat_map(|member| points(key, *member)))
            .map(|(_, value)| value)
            .fold(0.0, f64::max)
    };
    let rates = || [ONE_CPU, ALL_CPUS].iter().flat_map(|key| points(key, PROCESS)).map(|(rate, _)| rate);
    let range = (rates().fold(f64::MAX, f64::min) * 0.8..rates().fold(1.0, f64::max) * 1.25).log_scale();
    let canvas = SVGBackend::new(file, (900, 640)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let (above, below) = canvas.split_vertically(440);
    let mut chart = ChartBuilder::on(&above)
        .caption("What portchurn costs at which load", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(range.clone(), 0.0..(highest(&[PROCESS, PROGRAMS]) * 1.15).max(1.0))?;
    chart.configure_mesh().x_desc("transitions per second").y_desc("percent of one CPU").draw()?;
    for (name, key, member, colour) in series {
        let line = points(key, member);
        chart
            .draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(line.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    let mut chart = ChartBuilder::on(&below)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(range, 0.0..(highest(&[LOST]) * 1.15).max(1.0))?;
    chart.configure_mesh().x_desc("transitions per second").y_desc("transitions lost").y_labels(4).draw()?;
    for (key, colour) in [(ONE_CPU, RED), (ALL_CPUS, BLUE)] {
        chart.draw_series(points(key, LOST).into_iter().map(|point| Circle::new(point, 4, colour.filled())))?;
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_become_a_picture() {
        let mut figures = Figures::default();
        for rate in [1_000.0, 100_000.0] {
            figures.add(ONE_CPU.to_owned(), vec![rate, 2.0, 3.0, 0.0, 20.0, 90.0]);
            figures.add(ALL_CPUS.to_owned(), vec![rate, 1.0, 2.0, 7.0, 20.0, 90.0]);
        }
        let file = std::env::temp_dir().join(format!("portchurn-picture-{}.svg", std::process::id()));
        draw(&[figures], &file).expect("drawn");
        let text = std::fs::read_to_string(&file).expect("written");
        std::fs::remove_file(&file).expect("removed");
        assert!(text.starts_with("<svg") && text.contains("transitions lost"), "{text:.200}");
    }
}
