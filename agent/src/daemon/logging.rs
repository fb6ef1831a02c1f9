//! The daemon's own log, on standard error: text for people or JSON for collectors, no colours.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Config, LogFormat, Reloadable};

/// The crates whose messages are ours; all others are heard from warnings up.
const OWN: [&str; 7] = [
    "agent",
    "agent_api",
    "agent_image",
    "agent_runtime",
    "cluster",
    "cluster_api",
    "netdriver",
];

/// The log of a running daemon.
pub(super) struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

impl Logging {
    /// Starts logging. In a process that logs already, that goes on.
    pub(super) fn start(config: &Config) -> Self {
        let (filter, handle) = reload::Layer::new(targets(&config.reloadable));
        let output = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_target(false);
        let layer = match config.log_format {
            LogFormat::Text => output.boxed(),
            LogFormat::Json => output.json().flatten_event(true).boxed(),
        };
        let _ = tracing_subscriber::registry()
            .with(filter.and_then(layer))
            .try_init();
        Self { filter: handle }
    }

    /// Changes the level.
    pub(super) fn set_level(&self, level: &Reloadable) {
        // Fails only when the subscriber is gone, and then there is nobody to tell.
        let _ = self.filter.reload(targets(level));
    }
}

fn targets(level: &Reloadable) -> Targets {
    let own = match level.debug {
        true => level.log_level.max(LevelFilter::DEBUG),
        false => level.log_level,
    };
    let others = own.min(LevelFilter::WARN);
    Targets::new()
        .with_default(others)
        .with_targets(OWN.map(|target| (target, own)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn debug_wins_over_the_level_and_other_crates_stay_quiet() {
        let level = |debug, log_level| {
            targets(&Reloadable {
                debug,
                log_level,
                labels: Vec::new(),
            })
        };
        assert!(level(true, LevelFilter::ERROR).would_enable("agent::engine", &Level::DEBUG));
        assert!(!level(false, LevelFilter::INFO).would_enable("agent::engine", &Level::DEBUG));
        assert!(level(false, LevelFilter::INFO).would_enable("netdriver", &Level::INFO));
        assert!(!level(true, LevelFilter::INFO).would_enable("hyper", &Level::INFO));
        assert!(!level(false, LevelFilter::ERROR).would_enable("hyper", &Level::WARN));
    }
}
