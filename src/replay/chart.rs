//! Charts as plain SVG: bars by hour, and bars beside names. Colours come from the page's style.

use std::fmt::Write as _;

use super::count::Line;
use super::html::{escape, number};
use super::words::Words;

/// The chart by hour.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 260;
/// Room below for the hours, and above and at the left for the scale.
const BELOW: u64 = 28;
const ABOVE: u64 = 14;
const LEFT: u64 = 48;

/// Three bars an hour: known callers, with their own person then, and now.
pub(super) fn by_hour(hours: &[Line], words: &Words) -> String {
    let most = hours.iter().map(|line| line.known).max().unwrap_or(0);
    let top = round_up(most.max(4));
    let floor = HEIGHT - BELOW;
    let height = floor - ABOVE;
    let y_of = |count: u64| floor - count * height / top;
    let mut svg = format!(
        "<svg class=\"hours\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(words.by_hour)
    );
    for quarter in 0..=4 {
        let count = top * quarter / 4;
        let y = y_of(count);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"scale\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8,
            y + 4,
            number(count, words)
        );
    }
    let slot = (WIDTH - LEFT) / 24;
    let bar = slot.saturating_sub(9) / 3;
    for (index, line) in hours.iter().enumerate() {
        let x = LEFT + slot * index as u64 + 4;
        let told = format!(
            "{}:00 — {}: {}, {}: {}, {}: {}",
            line.name, words.known, line.known, words.then, line.own_then, words.now, line.own_now
        );
        let _ = write!(svg, "<g><title>{}</title>", escape(&told));
        for (place, (class, count)) in [
            ("all", line.known),
            ("then", line.own_then),
            ("now", line.own_now),
        ]
        .into_iter()
        .enumerate()
        {
            let (x, y) = (x + (bar + 1) * place as u64, y_of(count));
            let tall = floor - y;
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{bar}\" height=\"{tall}\" rx=\"1.5\"/>"
            );
        }
        let _ = write!(
            svg,
            "</g><text class=\"scale\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x + (slot - 8) / 2,
            HEIGHT - 8,
            escape(&line.name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A bar for a row of a table: the share then, and behind it the share now.
pub(super) fn shares(line: &Line, words: &Words) -> String {
    let percent = |count: u64| (count * 100).checked_div(line.known).unwrap_or(0);
    let (then, now) = (percent(line.own_then), percent(line.own_now));
    let told = format!("{}: {then} %, {}: {now} %", words.then, words.now);
    format!(
        "<svg class=\"share\" viewBox=\"0 0 100 14\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{0}\">\
         <title>{0}</title><rect class=\"track\" x=\"0\" y=\"0\" width=\"100\" height=\"14\"/>\
         <rect class=\"then\" x=\"0\" y=\"1\" width=\"{then}\" height=\"5\"/>\
         <rect class=\"now\" x=\"0\" y=\"8\" width=\"{now}\" height=\"5\"/></svg>",
        escape(&told)
    )
}

/// The next number that a scale of four parts divides well.
fn round_up(count: u64) -> u64 {
    let mut unit = 1;
    loop {
        for step in [4, 8, 12, 20, 40] {
            if step * unit >= count {
                return step * unit;
            }
        }
        unit *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_holds_the_highest_bar_and_is_not_twice_as_high() {
        for count in [4, 5, 9, 13, 39, 41, 99, 12_345, 399_999] {
            let top = round_up(count);
            assert!(top >= count && top <= count * 2, "{count} {top}");
            assert_eq!(top % 4, 0);
        }
    }
}
