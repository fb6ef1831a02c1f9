//! Taking times in turn and laying them out.

use std::fmt;
use std::time::{Duration, Instant};

/// One line: what was measured on each side, in milliseconds or MiB.
#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    muster: Vec<f64>,
    peer: Vec<f64>,
    peer_name: String,
    aim: Option<f64>,
}

/// What one of several peers needed.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) name: &'static str,
    /// What it did, where that is not plain.
    pub(crate) how: &'static str,
    pub(crate) values: Vec<f64>,
    /// Whether it did all that muster does, and can be the best.
    pub(crate) all: bool,
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// Adds a line against Docker; `aim` is the ratio to reach.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        muster: Vec<f64>,
        peer: Vec<f64>,
        aim: Option<f64>,
    ) {
        self.push(Row {
            what: what.into(),
            unit,
            muster,
            peer,
            peer_name: "docker".to_owned(),
            aim,
        });
    }

    /// Adds a line without a peer; of times the 99th percentile is given too.
    pub(crate) fn add_alone(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        muster: Vec<f64>,
    ) {
        self.add(what, unit, muster, Vec::new(), None);
    }

    /// Repeats the lines that a measurement of its own printed.
    pub(crate) fn repeat(&mut self, what: &str, lines: &[&str]) {
        self.note(format!("{what}:\n  {}", lines.join("\n  ")));
    }

    /// Says why something is not in the table.
    pub(crate) fn left_out(&mut self, what: &str, why: &str) {
        self.note(format!("{what} left out: {why}"));
    }

    /// Says something about the whole.
    pub(crate) fn note(&mut self, note: String) {
        eprintln!("bench: {note}");
        self.notes.push(note);
    }

    /// Adds a line of milliseconds against another peer.
    pub(crate) fn add_against(
        &mut self,
        peer_name: &'static str,
        what: &str,
        muster: Vec<f64>,
        peer: Vec<f64>,
    ) {
        self.push(Row {
            what: what.to_owned(),
            unit: "ms",
            muster,
            peer,
            peer_name: peer_name.to_owned(),
            aim: None,
        });
    }

    /// Adds a line for each peer. The aim is for the best of those that do all of it.
    pub(crate) fn compare(
        &mut self,
        what: &str,
        unit: &'static str,
        muster: &[f64],
        beside: Vec<Beside>,
        aim: Option<f64>,
    ) {
        let contenders = beside.iter().enumerate().filter(|(_, peer)| peer.all);
        let best = contenders
            .filter(|(_, peer)| !peer.values.is_empty())
            .min_by(|(_, one), (_, other)| median(&one.values).total_cmp(&median(&other.values)))
            .map(|(at, _)| at);
        let measured = beside.into_iter().enumerate();
        let mut measured: Vec<_> = measured
            .filter(|(_, peer)| !peer.values.is_empty())
            .collect();
        if measured.is_empty() && !muster.is_empty() {
            self.add_alone(what, unit, muster.to_vec());
        }
        for (at, peer) in measured.drain(..) {
            let mut peer_name = peer.name.to_owned();
            if Some(at) == best {
                peer_name.push_str(", best");
            }
            if !peer.how.is_empty() {
                peer_name = format!("{peer_name}: {}", peer.how);
            }
            self.push(Row {
                what: what.to_owned(),
                unit,
                muster: muster.to_vec(),
                peer: peer.values,
                peer_name,
                aim: aim.filter(|_| Some(at) == best),
            });
        }
    }

    fn push(&mut self, row: Row) {
        eprintln!("bench: {row}");
        self.rows.push(row);
    }
}

/// The middle value; NaN for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// The value that 99 of 100 do not exceed: the largest of fewer; NaN for none.
fn percentile_99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// Milliseconds that something took.
pub(crate) fn milliseconds<T>(
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(f64, T)> {
    let started = Instant::now();
    let value = work()?;
    Ok((started.elapsed().as_secs_f64() * 1000.0, value))
}

/// Lets the machine settle after many processes have ended, so that one side's cleaning up is not the other's time.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ours, theirs) = (median(&self.muster), median(&self.peer));
        match self.muster.is_empty() {
            true => write!(f, "{:<44} {:>9} {:<3}", self.what, "-", "")?,
            false => write!(f, "{:<44} {ours:>9.1} {:<3}", self.what, self.unit)?,
        }
        if !self.peer.is_empty() {
            let ratio = match self.muster.is_empty() {
                true => "-".to_owned(),
                false => format!("{:.3}", ours / theirs),
            };
            write!(
                f,
                " {theirs:>9.1} {:<3} {ratio:>6}  {}",
                self.unit, self.peer_name
            )?;
            if let Some(aim) = self.aim {
                write!(f, "  (aim {aim})")?;
            }
        } else if self.unit == "ms" {
            let highest = percentile_99(&self.muster);
            let count = self.muster.len();
            write!(f, "  p99 of {count}: {highest:.1} {}", self.unit)?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<44} {:>13} {:>13} {:>6}",
            "medians", "muster", "peer", "ratio"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}
