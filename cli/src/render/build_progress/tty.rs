//! Progress as a picture that is drawn over itself. Source: BuildKit `util/progress/progressui/display.go:ttyDisplay`.

use super::screen::HEIGHT;
use super::trace::{Step, Trace, bytes, seconds};
use jiff::Timestamp;
use std::fmt::Write as _;
use unicode_width::UnicodeWidthChar as _;

const BLUE: &str = "\x1b[34m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const FAINT: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// What is on the terminal.
#[derive(Debug, Default)]
pub(super) struct Tty {
    /// In the corner: `muster:default`.
    corner: String,
    colour: bool,
    /// Lines below the first of the last picture; `None` before there is one.
    lines: Option<usize>,
}

/// One line of the picture.
struct Row<'a> {
    name: String,
    amount: String,
    seconds: f64,
    colour: &'static str,
    completed: bool,
    /// The step whose output may be shown below it.
    step: Option<&'a Step>,
}

impl Tty {
    pub(super) fn new(corner: &str, colour: bool) -> Self {
        Self {
            corner: corner.to_owned(),
            colour,
            lines: None,
        }
    }

    /// The picture of now, with the moves that put it over the last one. At the end it is as long as it needs to be.
    pub(super) fn draw(
        &mut self,
        trace: &Trace,
        now: Timestamp,
        (width, height): (usize, usize),
        end: bool,
    ) -> String {
        // Times of the daemon are compared with the daemon's clock.
        let rows = rows(trace, trace.daemon_time(now));
        let (rows, shown) = fit(rows, height, end);
        let mut text = String::new();
        if let Some(lines) = self.lines {
            for _ in 0..=lines {
                text.push_str("\x1b[1A");
            }
            text.push_str("\x1b[0G");
        }
        text.push_str("\x1b[?25l");
        let _ = writeln!(text, "{}", self.head(trace, now, width, end));
        let mut lines = 0;
        for row in &rows {
            let Some(line) = row_line(row, width) else {
                continue;
            };
            self.paint(&mut text, row.colour, &line);
            lines += 1;
            let Some(step) = row
                .step
                .filter(|step| shown.contains(&step.vertex.digest.as_str()))
            else {
                continue;
            };
            for output in step.screen.lines() {
                let line = align(
                    &format!(" => => # {}", cut(&output, width.saturating_sub(10))),
                    "",
                    width,
                );
                self.paint(&mut text, FAINT, &line);
                lines += 1;
            }
        }
        if let Some(left) = self.lines.and_then(|before| before.checked_sub(lines)) {
            for _ in 0..left {
                let _ = writeln!(text, "{}", " ".repeat(width));
            }
            for _ in 0..left {
                text.push_str("\x1b[1A");
            }
            text.push_str("\x1b[0G");
        }
        text.push_str("\x1b[?25h");
        self.lines = Some(lines);
        text
    }

    fn head(&self, trace: &Trace, now: Timestamp, width: usize, end: bool) -> String {
        let (complete, all) = trace.counts();
        let time = trace.begun.map_or(0.0, |begun| seconds(begun, now));
        let finished = if end && complete > 0 && complete == all {
            "FINISHED"
        } else {
            ""
        };
        let head = format!("[+] Building {time:.1}s ({complete}/{all}) {finished}");
        // A line that went on in the next one would be drawn over in the wrong place.
        let room = width.saturating_sub(usize::from(!self.corner.is_empty()));
        match head.len() + self.corner.len() <= room {
            true => align(&head, &self.corner, room),
            false => align(&cut(head.trim_end(), width), "", width),
        }
    }

    fn paint(&self, text: &mut String, colour: &str, line: &str) {
        if self.colour && !colour.is_empty() {
            let _ = writeln!(text, "{colour}{line}{RESET}");
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
}

/// A row for each step that has started, for each of its parts, and for each warning.
fn rows(trace: &Trace, now: Timestamp) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let started = trace
        .started
        .iter()
        .filter_map(|digest| trace.steps.get(digest));
    for step in started.filter(|step| !step.is_grouped()) {
        let time = step.duration(now).unwrap_or(0.0);
        rows.push(step_row(step, time));
        for status in step.statuses.values() {
            let Some(start) = status.started else {
                continue;
            };
            let amount = match (status.current, status.total) {
                (0, 0) => String::new(),
                (current, 0) => bytes(current),
                (current, total) => format!("{} / {}", bytes(current), bytes(total)),
            };
            rows.push(Row {
                name: format!("=> {}", status.id),
                amount,
                seconds: seconds(start, status.completed.unwrap_or(now)),
                colour: if status.completed.is_some() { BLUE } else { "" },
                completed: status.completed.is_some(),
                step: None,
            });
        }
        for warning in &step.warnings {
            rows.push(Row {
                name: format!("WARN: {warning}"),
                amount: String::new(),
                seconds: time,
                colour: "",
                completed: true,
                step: None,
            });
        }
    }
    rows
}

fn step_row(step: &Step, seconds: f64) -> Row<'_> {
    let vertex = &step.vertex;
    let (word, colour) = if step.is_cancelled() {
        ("CANCELED ", YELLOW)
    } else if !vertex.error.is_empty() {
        ("ERROR ", RED)
    } else if vertex.cached {
        ("CACHED ", BLUE)
    } else {
        ("", BLUE)
    };
    Row {
        name: format!("{word}{}", vertex.name.replace(['\t', '\n'], " ")),
        amount: String::new(),
        seconds,
        colour: if step.is_completed() { colour } else { "" },
        completed: step.is_completed(),
        step: (!step.is_completed()).then_some(step),
    }
}

/// As many rows as the terminal has room for, and the steps whose output is shown. Rows that go on are not left out
/// while there are complete ones to leave out in their place.
fn fit(rows: Vec<Row<'_>>, height: usize, end: bool) -> (Vec<Row<'_>>, Vec<&str>) {
    let running = rows.iter().filter(|row| !row.completed).count();
    let mut free = height.saturating_sub(2 + running);
    let mut hidden = 0;
    let mut shown = Vec::new();
    for step in rows.iter().filter_map(|row| row.step) {
        if free > HEIGHT + 3 && step.screen.is_used() {
            shown.push(step.vertex.digest.as_str());
            hidden += step.screen.lines().count();
            free -= HEIGHT + 3;
        }
    }
    let limit = height.saturating_sub(2 + hidden);
    if end || rows.len() <= limit {
        return (rows, shown);
    }
    let mut drop = rows.len() - limit;
    let complete = rows.iter().filter(|row| row.completed).count();
    let mut drop_complete = drop.min(complete);
    drop -= drop_complete;
    let kept = rows.into_iter().filter(|row| {
        let left = if row.completed {
            &mut drop_complete
        } else {
            &mut drop
        };
        let keep = *left == 0;
        *left = left.saturating_sub(1);
        keep
    });
    (kept.collect(), shown)
}

/// ` => name amount        1.2s`; `None` when the terminal is too narrow for it.
fn row_line(row: &Row<'_>, width: usize) -> Option<String> {
    let time = if row.seconds < 0.05 { 0.0 } else { row.seconds };
    let timer = format!(" {time:.1}s");
    let mut left = width.checked_sub(" => ".len() + timer.len() + 2)?;
    let mut amount = "";
    if !row.amount.is_empty() && left + row.amount.len() > 20 {
        amount = &row.amount;
        left = left.checked_sub(amount.len() + 1)?;
    }
    if left < 12 {
        return None;
    }
    let space = if amount.is_empty() { "" } else { " " };
    let line = format!(" => {}{space}{amount}", cut(&row.name, left));
    Some(align(&line, &timer, width))
}

/// At most so many columns.
fn cut(text: &str, columns: usize) -> String {
    let mut used = 0;
    let fits = text.chars().take_while(|letter| {
        used += letter.width().unwrap_or(0);
        used <= columns
    });
    fits.collect()
}

/// Both ends of a line of `width` columns.
fn align(left: &str, right: &str, width: usize) -> String {
    let columns: usize = left.chars().map(|letter| letter.width().unwrap_or(0)).sum();
    let pad = width.saturating_sub(columns + right.len());
    format!("{left}{}{right}", " ".repeat(pad))
}
