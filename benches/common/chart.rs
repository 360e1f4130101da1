//! Charts for `docs/performance.md`: how something grows with the directory.

use std::fs;

use plotters::prelude::*;

use crate::{performance_page, sizes};

/// Told apart on white, and without colours by the legend's order.
const COLOURS: [RGBColor; 3] = [
    RGBColor(0x1f, 0x5f, 0xbf),
    RGBColor(0xc2, 0x4a, 0x00),
    RGBColor(0x2e, 0x7d, 0x32),
];
const FONT: &str = "sans-serif";

/// A line: its name, and a figure for each size.
pub(crate) type Line = (&'static str, Vec<(u64, f64)>);

/// Draws `performance/<file>.svg` beside the page, three lines at most. `unit` names the vertical axis.
pub(crate) fn draw(file: &str, title: &str, unit: &str, lines: &[Line]) {
    let folder = performance_page::folder().join("performance");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(file).with_extension("svg");
    let points = || lines.iter().flat_map(|(_, points)| points);
    let smallest = points().map(|(numbers, _)| *numbers).min().unwrap_or(1) as f64;
    let largest = points().map(|(numbers, _)| *numbers).max().unwrap_or(1) as f64;
    let mut marked: Vec<f64> = points().map(|(numbers, _)| *numbers as f64).collect();
    marked.sort_by(f64::total_cmp);
    marked.dedup();
    let across = (smallest / 1.5..largest * 1.5).log_scale();
    // Room above for the legend and the topmost figure.
    let top = points().map(|(_, figure)| *figure).fold(0.0, f64::max) * 1.4;
    let canvas = SVGBackend::new(&path, (760, 420)).into_drawing_area();
    // Pages may be dark; ink is black.
    canvas.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&canvas)
        .caption(title, (FONT, 20))
        .margin(16)
        .margin_right(32)
        .x_label_area_size(52)
        .y_label_area_size(80)
        .build_cartesian_2d(across.with_key_points(marked), 0.0..top)
        .unwrap();
    chart
        .configure_mesh()
        .x_desc("numbers in the directory")
        .y_desc(unit)
        .x_label_formatter(&|numbers| sizes::words(numbers.round() as u64))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .light_line_style(WHITE)
        .draw()
        .unwrap();
    // The last of three lines has its figures below: two lines often lie close together.
    let offsets = [-18, -18, 6];
    for (((name, points), colour), offset) in lines.iter().zip(&COLOURS).zip(offsets) {
        let points = points
            .iter()
            .map(|(numbers, figure)| (*numbers as f64, *figure));
        let line = LineSeries::new(points.clone(), colour.stroke_width(2)).point_size(4);
        chart
            .draw_series(line)
            .unwrap()
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
        let figures = points.map(|(numbers, figure)| {
            EmptyElement::at((numbers, figure))
                + Text::new(
                    short(figure),
                    (6, offset),
                    (FONT, 13).into_font().color(colour),
                )
        });
        chart.draw_series(figures).unwrap();
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .margin(10)
        .label_font((FONT, 14))
        .draw()
        .unwrap();
    canvas.present().unwrap();
}

/// Three digits are enough to look at.
fn short(figure: f64) -> String {
    match figure {
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small => format!("{small:.2}"),
    }
}
