// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What devices have done over time, while the process behind them was exchanged.

use plotters::prelude::*;

use super::{axes, Area, Error, BLUE, FONT, GREEN, ORANGE, TEXT, WIDTH};

/// Of each device.
const HEIGHT: u32 = 200;

/// What devices have done in intervals, one after the other.
#[derive(Debug, PartialEq)]
pub struct Timeline {
    /// The middle of each interval, in seconds.
    pub times_s: Vec<f64>,
    /// A device each.
    pub curves: Vec<Curve>,
    /// When another process has gone on with the devices, in seconds, and for how long they stood still, in milliseconds.
    pub exchanges: Vec<(f64, f64)>,
}

/// One of the devices.
#[derive(Debug, PartialEq)]
pub struct Curve {
    /// Which, and what of it was counted.
    pub title: String,
    /// For each interval.
    pub counts: Vec<f64>,
}

/// A panel for each device, with a line for each exchange.
///
/// # Errors
///
/// It can't be drawn.
pub fn draw(timeline: &Timeline) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let panels = timeline.curves.len().max(1);
        let height = HEIGHT.saturating_mul(u32::try_from(panels).unwrap_or(u32::MAX));
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let areas = root.split_evenly((panels, 1));
        let colors = [BLUE, GREEN, ORANGE].into_iter().cycle();
        for ((area, curve), color) in areas.iter().zip(&timeline.curves).zip(colors) {
            panel(area, timeline, curve, color)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn panel(
    area: &Area<'_>,
    timeline: &Timeline,
    curve: &Curve,
    color: RGBColor,
) -> Result<(), Error> {
    let begin = timeline.times_s.first().copied().unwrap_or(0.0);
    let end = timeline.times_s.last().copied().unwrap_or(0.0) + 0.1;
    // Room for what the lines say.
    let most = curve.counts.iter().copied().fold(1.0, f64::max) * 1.3;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(48)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .caption(&curve.title, (FONT, 16).into_font().color(&TEXT))
        .build_cartesian_2d(begin..end, 0.0..most)?;
    axes(&mut chart, "s", "")?;
    let points = timeline
        .times_s
        .iter()
        .copied()
        .zip(curve.counts.iter().copied());
    chart.draw_series(
        AreaSeries::new(points, 0.0, color.mix(0.35)).border_style(color.stroke_width(1)),
    )?;
    for (number, (at, stood_still_ms)) in timeline.exchanges.iter().enumerate() {
        chart.draw_series([PathElement::new(
            [(*at, 0.0), (*at, most)],
            TEXT.stroke_width(2),
        )])?;
        chart.draw_series([Text::new(
            format!("exchange {}: {stood_still_ms:.0} ms", number + 1),
            (at + (end - begin) / 150.0, most * 0.97),
            (FONT, 13).into_font().color(&TEXT),
        )])?;
    }
    Ok(())
}
