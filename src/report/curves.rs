//! Training curves by epoch: losses above, Dice on held-out scans below.

use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;

/// The results of one epoch: a row of `log.csv`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EpochRow {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Number of steps so far.
    pub iteration: u64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean training loss of the epoch.
    pub train_loss: f64,
    /// Loss on the supervoxels of the held-out scans, if validated.
    pub validation_loss: Option<f64>,
    /// Mean Dice on the supervoxels of the held-out scans, if validated.
    pub validation_dice: Option<f64>,
    /// Mean Dice on the organs of the held-out scans, if annotated.
    pub organ_dice: Option<f64>,
    /// Number of skipped episodes, for instance for an empty mask.
    pub skipped: u64,
}

/// One line of a panel: its name, colour and points (epoch, value), all finite.
struct Curve {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Okabe and Ito's palette for all kinds of colour vision.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);

const WIDTH: u32 = 760;
const PANEL_HEIGHT: u32 = 300;
const INK: RGBColor = RGBColor(40, 40, 40);

/// The log as an SVG that scales with its container: the losses, and below them the Dice if there is any.
pub fn curves_svg(log: &[EpochRow]) -> String {
    let curve = |name, colour, value: fn(&EpochRow) -> Option<f64>| Curve {
        name,
        colour,
        points: log
            .iter()
            .filter_map(|row| Some((row.epoch as f64, value(row)?)))
            .filter(|(_, value)| value.is_finite())
            .collect(),
    };
    let losses = [
        curve("training", BLUE, |row| Some(row.train_loss)),
        curve("validation", VERMILLION, |row| row.validation_loss),
    ];
    let dice =
        [curve("supervoxels", VERMILLION, |row| row.validation_dice), curve("organs", GREEN, |row| row.organ_dice)];
    let epochs = log.last().map_or(1, |row| row.epoch.max(1)) as f64;
    let with_dice = dice.iter().any(|curve| !curve.points.is_empty());
    let height = if with_dice { 2 * PANEL_HEIGHT } else { PANEL_HEIGHT };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = root.fill(&WHITE).and_then(|()| {
            let (upper, lower) = root.split_vertically(PANEL_HEIGHT);
            panel(&upper, "loss", 0.0..epochs, loss_range(&losses), &losses, SeriesLabelPosition::UpperRight)?;
            if with_dice {
                let title = "validation Dice";
                panel(&lower, title, 0.0..epochs, 0.0..1.0, &dice, SeriesLabelPosition::LowerRight)?;
            }
            root.present()
        });
        drawn.expect("drawing into a string does not fail");
    }
    svg.replacen(&format!("width=\"{WIDTH}\" height=\"{height}\" "), "", 1)
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn panel(
    area: &DrawingArea<SVGBackend, Shift>,
    title: &str,
    epochs: Range<f64>,
    values: Range<f64>,
    curves: &[Curve],
    legend: SeriesLabelPosition,
) -> Drawn {
    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d(epochs, values)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(title)
        .axis_desc_style(text(19))
        .label_style(text(17))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|epoch| format!("{epoch:.0}"))
        .y_label_formatter(&|value| tidy(*value))
        .axis_style(INK)
        .bold_line_style(INK.mix(0.14))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for Curve { name, colour, points } in curves.iter().filter(|curve| !curve.points.is_empty()) {
        let line = colour.stroke_width(2);
        if points.len() < 40 {
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        }
        chart
            .draw_series(LineSeries::new(points.iter().copied(), line))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line));
    }
    if curves.iter().any(|curve| !curve.points.is_empty()) {
        chart
            .configure_series_labels()
            .position(legend)
            .legend_area_size(30)
            .margin(8)
            .background_style(WHITE.mix(0.85))
            .label_font(text(17))
            .draw()?;
    }
    Ok(())
}

/// The range of the finite losses, widened by a twentieth of it on each side; never empty.
fn loss_range(curves: &[Curve]) -> Range<f64> {
    let values = || curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return 0.0..1.0;
    }
    let pad = ((high - low) / 20.0).max(1e-3 * high.abs()).max(1e-6);
    low - pad..high + pad
}

/// Up to three decimals, without trailing zeros.
fn tidy(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(epochs: u64, with_validation: bool) -> Vec<EpochRow> {
        (1..=epochs)
            .map(|epoch| EpochRow {
                epoch,
                iteration: 16 * epoch,
                learning_rate: 1e-4,
                train_loss: 1.0 / epoch as f64,
                validation_loss: with_validation.then_some(1.2 / epoch as f64),
                validation_dice: with_validation.then_some(1.0 - 0.9 / epoch as f64),
                organ_dice: None,
                skipped: 0,
            })
            .collect()
    }

    fn lines(svg: &str) -> usize {
        svg.matches("stroke-width=\"2\"").count()
    }

    #[test]
    fn a_panel_of_dice_appears_only_where_there_is_dice() {
        let without = curves_svg(&log(50, false));
        assert!(without.contains("viewBox=\"0 0 760 300\"") && !without.contains("validation"));
        let with = curves_svg(&log(50, true));
        assert!(with.contains("viewBox=\"0 0 760 600\"") && with.contains("supervoxels") && !with.contains("organs"));
        assert!(lines(&with) > lines(&without) && lines(&without) > 0);
        assert!(!with.contains("width=\"760\" height=\"600\" viewBox"), "it takes its size from the page");
    }

    #[test]
    fn odd_logs_are_drawn_too() {
        let mut broken = log(3, true);
        broken[1].train_loss = f64::NAN;
        broken[2].validation_loss = Some(f64::INFINITY);
        for log in [Vec::new(), log(1, true), broken] {
            let svg = curves_svg(&log);
            assert!(svg.starts_with("<svg") && !svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn tick_labels_are_short() {
        for (value, text) in [(0.25, "0.25"), (1.0, "1"), (0.0, "0"), (10.0, "10"), (0.1234, "0.123")] {
            assert_eq!(tidy(value), text);
        }
    }
}
