// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pictures, as SVG without a background, in colours that can be read on a light and on a dark page.

use std::io;
use std::ops::Range;

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

pub mod exchanges;

/// A picture could not be drawn.
pub type Error = DrawingAreaErrorKind<io::Error>;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

const TEXT: RGBColor = RGBColor(0x80, 0x86, 0x8e);
const BLUE: RGBColor = RGBColor(0x3f, 0x83, 0xd0);
const ORANGE: RGBColor = RGBColor(0xd5, 0x7d, 0x24);
const GREEN: RGBColor = RGBColor(0x3c, 0x9a, 0x5f);
const WIDTH: u32 = 860;
const FONT: &str = "sans-serif";

/// What was done in each interval of a run with a stop and a resume.
#[derive(Debug)]
pub struct Timeline {
    /// When each interval began.
    pub times_ms: Vec<f64>,
    /// Requests of a disk in it.
    pub requests: Vec<f64>,
    /// Frames of a network device in it.
    pub frames: Vec<f64>,
    /// From when to when both were stopped.
    pub stopped_ms: (f64, f64),
}

/// Requests and frames over time.
///
/// # Errors
///
/// It can't be drawn.
pub fn timeline(timeline: &Timeline) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 420)).into_drawing_area();
        let (upper, lower) = root.split_vertically(210);
        panel(
            &upper,
            timeline,
            &timeline.requests,
            "disk: requests completed in 10 ms",
            BLUE,
        )?;
        panel(
            &lower,
            timeline,
            &timeline.frames,
            "network device: frames received in 10 ms",
            ORANGE,
        )?;
        root.present()?;
    }
    Ok(svg)
}

fn panel(
    area: &Area<'_>,
    timeline: &Timeline,
    counts: &[f64],
    title: &str,
    color: RGBColor,
) -> Result<(), Error> {
    let end = timeline.times_ms.last().copied().unwrap_or(0.0) + 10.0;
    let most = counts.iter().copied().fold(1.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(24)
        .x_label_area_size(40)
        .y_label_area_size(44)
        .caption(title, (FONT, 16).into_font().color(&TEXT))
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    axes(&mut chart, "ms", "")?;
    let (stopped, resumed) = timeline.stopped_ms;
    chart.draw_series([Rectangle::new(
        [(stopped, 0.0), (resumed, most)],
        TEXT.mix(0.2).filled(),
    )])?;
    let points = timeline
        .times_ms
        .iter()
        .copied()
        .zip(counts.iter().copied());
    chart.draw_series(
        AreaSeries::new(points, 0.0, color.mix(0.35)).border_style(color.stroke_width(1)),
    )?;
    let label = (FONT, 14).into_font().color(&TEXT);
    chart.draw_series([Text::new(
        "stopped",
        ((stopped + resumed) / 2.0 - end / 30.0, most * 0.93),
        label,
    )])?;
    Ok(())
}

/// For each driver how late it sees an acknowledgement (ms) that comes after so long (ms), both on logarithmic scales.
///
/// # Errors
///
/// It can't be drawn.
pub fn overshoot(curves: &[(&str, Vec<(f64, f64)>)]) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 420)).into_drawing_area();
        let range = |values: Vec<f64>| Range {
            start: values.iter().copied().fold(f64::INFINITY, f64::min) * 0.8,
            end: values.iter().copied().fold(0.0, f64::max) * 1.25,
        };
        let points = || curves.iter().flat_map(|(_, points)| points);
        let x = range(points().map(|point| point.0).collect());
        let y = range(points().map(|point| point.1).collect());
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .caption(
                "how late the driver sees that the device has stopped (median)",
                (FONT, 16).into_font().color(&TEXT),
            )
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        axes(
            &mut chart,
            "the device stops after (ms)",
            "seen later by (ms)",
        )?;
        for ((name, points), color) in curves.iter().zip([BLUE, ORANGE, GREEN]) {
            chart
                .draw_series(LineSeries::new(
                    points.iter().copied(),
                    color.stroke_width(2),
                ))?
                .label(*name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
                });
            chart.draw_series(
                points
                    .iter()
                    .map(|point| Circle::new(*point, 3, color.filled())),
            )?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font((FONT, 14).into_font().color(&TEXT))
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// Without more decimals than it needs.
fn number(value: &f64) -> String {
    ((value * 1e3).round() / 1e3).to_string()
}

fn axes<X, Y>(chart: &mut Chart<'_, X, Y>, x: &str, y: &str) -> Result<(), Error>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(TEXT.mix(0.25))
        .axis_style(TEXT)
        .label_style((FONT, 13).into_font().color(&TEXT))
        .axis_desc_style((FONT, 14).into_font().color(&TEXT))
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .x_desc(x)
        .y_desc(y)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_no_background() {
        let svg = timeline(&Timeline {
            times_ms: vec![0.0, 10.0, 20.0],
            requests: vec![5.0, 0.0, 4.0],
            frames: vec![1.0, 0.0, 2.0],
            stopped_ms: (10.0, 20.0),
        })
        .unwrap();
        assert!(svg.contains("stopped") && !svg.contains("#FFFFFF"), "{svg}");
        let svg = overshoot(&[("ours", vec![(0.1, 0.01), (1000.0, 20.0)])]).unwrap();
        assert!(svg.contains("ours") && !svg.contains("#FFFFFF"), "{svg}");
    }
}
