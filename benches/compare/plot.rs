//! The plot: a panel for each ring format and load, a group of bars for each
//! cell, a bar for each contender from its median, and a line from its least
//! sample to its most.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Text};

use crate::contenders;
use crate::spread::Spread;
use crate::throughput::{Cell, Outcome};
use crate::work::{Format, Load};

/// Pixels.
const BAR: f64 = 22.0;
const GAP: f64 = 26.0;
const LEFT: f64 = 60.0;
const HEIGHT: f64 = 240.0;
const ABOVE: f64 = 70.0;
const BELOW: f64 = 30.0;
/// The contenders' colours, in their order.
const COLOURS: [&str; 6] = [
    "#0b6e4f", "#c8553d", "#8d6a9f", "#9aa5b1", "#3fa97c", "#e0a458",
];
/// Lines across, about.
const STEPS: f64 = 5.0;
/// What a letter takes.
const LETTER: f64 = 6.5;

/// Draws all cells.
pub fn draw(cells: &[Cell]) -> String {
    let mut panels: Vec<Vec<&Cell>> = Vec::new();
    for cell in cells {
        match panels.iter_mut().find(|panel| key(panel[0]) == key(cell)) {
            Some(panel) => panel.push(cell),
            None => panels.push(vec![cell]),
        }
    }
    let mut document = Document::new()
        .set("font-family", "sans-serif")
        .set("font-size", 11);
    let (mut width, mut top) = (0.0f64, 0.0);
    for panel in &panels {
        let (group, right) = draw_panel(panel, top);
        document = document.add(group);
        width = width.max(right);
        top += ABOVE + HEIGHT + BELOW;
    }
    document
        .set("viewBox", (0, 0, width, top))
        .set("width", width)
        .set("height", top)
        .to_string()
}

/// What the cells of a panel have in common.
fn key(cell: &Cell) -> (Format, Load) {
    (cell.work.format, cell.work.load)
}

/// Millions of frames a second.
fn rate(outcome: &Outcome) -> Option<Spread> {
    let samples = outcome.samples.iter().flatten();
    Spread::of(samples.map(|sample| sample.frames_per_second / 1e6))
}

/// Whether bars are scaled to it: the limit may be far above the others, and is
/// cut off then.
fn sets_scale(outcome: &Outcome) -> bool {
    outcome.subject.name != "copy-loop"
}

fn draw_panel(panel: &[&Cell], top: f64) -> (Group, f64) {
    let outcomes = || panel.iter().flat_map(|cell| &cell.outcomes);
    let scaled = outcomes().filter(|outcome| sets_scale(outcome));
    let highest = scaled
        .filter_map(rate)
        .map(|rate| rate.most)
        .fold(0.0, f64::max);
    let highest = if highest > 0.0 { highest * 1.1 } else { 1.0 };
    let base = top + ABOVE + HEIGHT;
    let y = |value: f64| base - value.min(highest) / highest * HEIGHT;
    let mut group = Group::new();
    let mut x = LEFT;
    let mut bars = Group::new();
    for cell in panel {
        let start = x;
        for outcome in &cell.outcomes {
            let Some(rate) = rate(outcome) else {
                continue;
            };
            bars = bars.add(draw_bar(outcome, rate, x, &y, base));
            x += BAR;
        }
        let label = cell.work.short_label();
        let middle = start.midpoint(x);
        bars = bars.add(text(middle, base + 16.0, &label, "middle"));
        x = x.max(start + width(&label)) + GAP;
    }
    let right = x;
    let step = step(highest);
    let mut value = 0.0;
    while value <= highest {
        let line = Line::new().set("x1", LEFT - 6.0).set("x2", right);
        let line = line.set("y1", y(value)).set("y2", y(value));
        let digits = if step < 1.0 { 1 } else { 0 };
        let label = format!("{value:.digits$}");
        group = group.add(line.set("stroke", "#ddd")).add(text(
            LEFT - 10.0,
            y(value) + 4.0,
            &label,
            "end",
        ));
        value += step;
    }
    let title = format!("M frames/s, {} rings", panel[0].work.format.name());
    group = group.add(text(LEFT, top + 18.0, &title, "start").set("font-weight", "bold"));
    let mut x = LEFT;
    for outcome in &panel[0].outcomes {
        let name = &outcome.subject.name;
        group = group
            .add(rectangle(x, top + 28.0, 10.0, 10.0).set("fill", colour(name)))
            .add(text(x + 14.0, top + 37.0, name, "start"));
        x += 24.0 + width(name);
    }
    (group.add(bars), right.max(x) + GAP)
}

fn draw_bar(outcome: &Outcome, rate: Spread, x: f64, y: &impl Fn(f64) -> f64, base: f64) -> Group {
    let name = &outcome.subject.name;
    let (top, middle) = (y(rate.median), x + BAR / 2.0);
    let spread = Line::new().set("x1", middle).set("x2", middle);
    let spread = spread.set("y1", y(rate.most)).set("y2", y(rate.least));
    let value = format!("{:.1}", rate.median);
    Group::new()
        .add(rectangle(x + 1.0, top, BAR - 2.0, base - top).set("fill", colour(name)))
        .add(spread.set("stroke", "#222"))
        .add(text(middle, y(rate.most) - 4.0, &value, "middle").set("font-size", 9))
}

/// A round number from one line across to the next.
fn step(highest: f64) -> f64 {
    let power = 10f64.powf((highest / STEPS).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let enough = steps.into_iter().find(|step| step * STEPS >= highest);
    enough.unwrap_or(highest)
}

/// What a text takes, about.
fn width(text: &str) -> f64 {
    LETTER * f64::from(u32::try_from(text.len()).unwrap_or(0))
}

fn colour(name: &str) -> &'static str {
    let at = contenders::all()
        .iter()
        .position(|contender| contender.name() == name);
    at.and_then(|at| COLOURS.get(at)).copied().unwrap_or("#444")
}

fn rectangle(x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    let corner = Rectangle::new().set("x", x).set("y", y);
    corner.set("width", width).set("height", height)
}

fn text(x: f64, y: f64, text: &str, anchor: &str) -> Text {
    Text::new(text)
        .set("x", x)
        .set("y", y)
        .set("text-anchor", anchor)
}
