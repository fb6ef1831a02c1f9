//! The layers of a pull or push on a terminal, one line each, redrawn in place; other texts go above them.
//! Source of the looks: moby `pkg/jsonmessage`.

use super::units::human_size;
use agent_api::ProgressDetail;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io;

/// Characters of a bar.
const BAR: usize = 50;

/// Lines that are redrawn.
pub(crate) struct LiveTransfer {
    lines: MultiProgress,
    layers: HashMap<String, ProgressBar>,
}

impl LiveTransfer {
    pub(crate) fn on_stdout() -> Self {
        Self::on(ProgressDrawTarget::stdout())
    }

    pub(crate) fn on_stderr() -> Self {
        Self::on(ProgressDrawTarget::stderr())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        Self {
            lines: MultiProgress::with_draw_target(target),
            layers: HashMap::new(),
        }
    }

    /// A text of its own.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.lines.println(text)
    }

    /// How far a layer is.
    pub(crate) fn step(&mut self, id: &str, status: &str, detail: &ProgressDetail) {
        let layer = self.layers.entry(id.to_owned()).or_insert_with(|| {
            let line = self.lines.add(ProgressBar::no_length());
            line.set_style(ProgressStyle::with_template("{msg}").expect("a constant template"));
            line
        });
        layer.set_message(format!("{id}: {status} {}", bar(detail)));
    }
}

impl Drop for LiveTransfer {
    /// What was drawn stays.
    fn drop(&mut self) {
        for layer in self.layers.values() {
            layer.abandon();
        }
    }
}

/// `[====>      ]  1.2MB/3MB`, as moby's `pkg/jsonmessage`.
pub(super) fn bar(detail: &ProgressDetail) -> String {
    let current = detail.current.unwrap_or(0);
    match detail.total {
        Some(total) if total > 0 && current <= total => {
            let done = usize::try_from(current.saturating_mul(BAR as i64) / total).unwrap_or(BAR);
            format!(
                "[{}>{}] {:>8}/{}",
                "=".repeat(done),
                " ".repeat(BAR - done.min(BAR)),
                human_size(current),
                human_size(total)
            )
        }
        _ if current > 0 => human_size(current),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_one_length() {
        let of = |current, total| {
            bar(&ProgressDetail {
                current: Some(current),
                total,
            })
        };
        for current in [0, 1, 499, 999, 1000] {
            let text = of(current, Some(1000));
            assert_eq!(text.find(']'), Some(BAR + 2), "{text}");
        }
        assert!(of(500, Some(1000)).starts_with(&format!("[{}>", "=".repeat(25))));
        // Longer than was thought.
        assert_eq!(of(1500, Some(1000)), "1.5kB");
        assert_eq!(bar(&ProgressDetail::default()), "");
    }
}
