//! The configuration file of a result: the plan's, with the layers and the times put in. Pure.
//!
//! Times are those of the layers, so that building the same again from the cache gives the same image, byte for byte.
//! Source: buildkit `exporter/containerimage/writer.go` (`normalizeLayersAndHistory`, `patchImageConfig`).

use agent_build::plan::{History, ImageConfig};
use agent_image::Digest;
use jiff::Timestamp;

/// A layer of the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResultLayer {
    /// Digest of its tar.
    pub(crate) diff_id: Digest,
    /// When it was made; layers of a base image tell it in their history.
    pub(crate) created: Option<Timestamp>,
}

/// The configuration file. `base_history` is how many lines of the history are the base image's: their times are left
/// alone. `epoch` is `SOURCE_DATE_EPOCH`: nothing that this build made is younger.
pub(crate) fn image_config(
    config: &ImageConfig,
    layers: &[ResultLayer],
    base_history: usize,
    epoch: Option<i64>,
) -> Vec<u8> {
    let mut config = config.clone();
    name_layers(&mut config.history, layers);
    fill_times(&mut config.history, layers);
    if let Some(epoch) = epoch.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        for line in config.history.iter_mut().skip(base_history) {
            let later = |time: &String| time.parse::<Timestamp>().is_ok_and(|time| time > epoch);
            if line.created.as_ref().is_none_or(later) {
                line.created = Some(epoch.to_string());
            }
        }
    }
    let created = config
        .history
        .iter()
        .rev()
        .find_map(|line| line.created.clone());
    let created = created.unwrap_or_else(|| match epoch {
        Some(seconds) => Timestamp::from_second(seconds)
            .unwrap_or_default()
            .to_string(),
        None => Timestamp::now().to_string(),
    });
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    config.to_json(&created, &diff_ids)
}

/// Gives layers that no line of the history is about one of their own: those of a directory that stands in for an image, and of
/// images without a history. Source: buildkit `exporter/containerimage/writer.go` (`normalizeLayersAndHistory`).
fn name_layers(history: &mut Vec<History>, layers: &[ResultLayer]) {
    let known = history.iter().filter(|line| !line.empty_layer).count();
    for layer in layers.iter().skip(known) {
        history.push(History {
            created: layer.created.map(|time| time.to_string()),
            comment: "buildkit.exporter.image.v0".to_owned(),
            ..History::default()
        });
    }
}

/// Gives lines of the history without a time the time of their layer, or, if they have none, of the layer before them;
/// the first ones that of the first new layer.
fn fill_times(history: &mut [History], layers: &[ResultLayer]) {
    let mut layer = layers.iter();
    for line in history.iter_mut().filter(|line| !line.empty_layer) {
        let made = layer.next().and_then(|layer| layer.created);
        if line.created.is_none() {
            line.created = made.map(|time| time.to_string());
        }
    }
    let first_without = history.iter().position(|line| line.created.is_none());
    let Some(first) = first_without else { return };
    let after = history[first..]
        .iter()
        .find_map(|line| line.created.clone());
    let before = || {
        history[..first]
            .iter()
            .rev()
            .find_map(|line| line.created.clone())
    };
    let mut time = after.or_else(before);
    for line in &mut history[first..] {
        match &line.created {
            Some(created) => time = Some(created.clone()),
            None => line.created.clone_from(&time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines `L<time>` with a layer, `E<time>` without; layers with their times; the lines' times afterwards.
    fn filled(lines: &[(&str, Option<i64>)], layers: &[Option<i64>]) -> Vec<Option<String>> {
        let time = |seconds: i64| Timestamp::from_second(seconds).unwrap().to_string();
        let mut history: Vec<History> = lines
            .iter()
            .map(|(kind, created)| History {
                empty_layer: *kind == "E",
                created: created.map(time),
                ..History::default()
            })
            .collect();
        let layers: Vec<ResultLayer> = layers
            .iter()
            .map(|created| ResultLayer {
                diff_id: Digest::of(b"x"),
                created: created.map(|seconds| Timestamp::from_second(seconds).unwrap()),
            })
            .collect();
        fill_times(&mut history, &layers);
        history
            .into_iter()
            .map(|line| {
                line.created
                    .map(|text| text.replace("1970-01-01T00:00:0", "").replace('Z', ""))
            })
            .collect()
    }

    fn texts(times: &[i64]) -> Vec<Option<String>> {
        times.iter().map(|time| Some(time.to_string())).collect()
    }

    #[test]
    fn lines_have_the_times_of_their_layers() {
        // A base with one layer, then ENV, RUN, CMD.
        let lines = [("L", Some(1)), ("E", None), ("L", None), ("E", None)];
        assert_eq!(filled(&lines, &[None, Some(5)]), texts(&[1, 5, 5, 5]));
        // Two new layers.
        let lines = [
            ("E", None),
            ("L", None),
            ("E", None),
            ("L", None),
            ("E", None),
        ];
        assert_eq!(filled(&lines, &[Some(3), Some(4)]), texts(&[3, 3, 3, 4, 4]));
        // Nothing but metadata on a base: the base's time.
        assert_eq!(
            filled(&[("L", Some(2)), ("E", None)], &[None]),
            texts(&[2, 2])
        );
        // Nothing at all.
        assert_eq!(filled(&[("E", None)], &[]), [None]);
    }

    #[test]
    fn the_epoch_bounds_what_is_new() {
        let layer = |created| ResultLayer {
            diff_id: Digest::of(b"x"),
            created,
        };
        let line = |created: Option<&str>, empty_layer| History {
            created: created.map(str::to_owned),
            empty_layer,
            ..History::default()
        };
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            history: vec![line(Some("2020-01-01T00:00:00Z"), false), line(None, false)],
            ..ImageConfig::default()
        };
        let layers = [layer(None), layer(Some(Timestamp::now()))];
        let json = image_config(&config, &layers, 1, Some(1_000_000_000));
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["history"][0]["created"], "2020-01-01T00:00:00Z");
        assert_eq!(json["history"][1]["created"], "2001-09-09T01:46:40Z");
        assert_eq!(json["created"], "2001-09-09T01:46:40Z");
    }
}
