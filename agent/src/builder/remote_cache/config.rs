//! The document that describes a cache: BuildKit's `application/vnd.buildkit.cacheconfig.v0`. Pure.
//!
//! ```text
//! layers   blob, parent (index; -1: none), annotations: media type, diff id, size, time
//! records  digest = a key of ours; layers = [{layer: index of the topmost}]; muster = what BuildKit has no place for
//! ```
//!
//! A step that is found under several keys is as many records. BuildKit reads the document, and finds nothing in it, since
//! its keys are others; of its own documents the same is true here.
//! Source: buildkit `cache/remotecache/v1/{spec,doc}.go`.

use std::collections::HashMap;

use agent_image::{Digest, LayerBlob};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builder::records::Kind;
use crate::builder::solve::Key;

/// Media type of the document as a blob.
pub(super) const CONFIG_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Layers below each other that are followed.
const DEPTH_MAX: usize = 500;

/// The document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CacheConfig {
    #[serde(default)]
    layers: Vec<CacheLayer>,
    #[serde(default)]
    records: Vec<CacheRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CacheLayer {
    /// Not there in the configuration of an image: layers are the image's, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Digest>,
    #[serde(default)]
    parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotations {
    #[serde(default)]
    media_type: String,
    #[serde(default, rename = "diffID")]
    diff_id: Option<Digest>,
    #[serde(default)]
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CacheRecord {
    digest: Digest,
    #[serde(default)]
    layers: Vec<CacheResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    muster: Option<Facts>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CacheResult {
    layer: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
}

/// About a result of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Equal in all records of one step.
    pub(super) id: String,
    /// The step's name.
    pub(super) description: String,
    /// What kind of thing it is.
    pub(super) kind: Kind,
    /// Layers, from the top, that the step adds.
    pub(super) own: usize,
}

/// A layer of a result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChainLayer {
    pub(super) diff_id: Digest,
    pub(super) created: Option<Timestamp>,
}

/// A result to be described.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Described {
    pub(super) facts: Facts,
    pub(super) keys: Vec<Key>,
    pub(super) created: Timestamp,
    /// Lowest first.
    pub(super) chain: Vec<ChainLayer>,
}

/// A result that was described.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Offered {
    pub(super) described: Described,
    /// How its layers are packed, lowest first.
    pub(super) blobs: Vec<LayerBlob>,
}

impl CacheConfig {
    /// Describes results; where their layers are is to be filled in ([`CacheConfig::place`]).
    pub(super) fn of(results: &[Described]) -> Self {
        let mut config = Self::default();
        // Two steps may make the same layer at two times, which are in the histories of their images.
        let mut known: HashMap<(i64, Digest, Option<Timestamp>), i64> = HashMap::new();
        for result in results {
            let mut top = -1;
            for layer in &result.chain {
                let place = (top, layer.diff_id, layer.created);
                top = *known.entry(place).or_insert_with(|| {
                    config.layers.push(CacheLayer {
                        blob: None,
                        parent: top,
                        annotations: Some(Annotations {
                            diff_id: Some(layer.diff_id),
                            created_at: layer.created,
                            ..Annotations::default()
                        }),
                    });
                    config.layers.len() as i64 - 1
                });
            }
            let Ok(layer) = usize::try_from(top) else {
                continue;
            };
            config.add(result, layer);
        }
        config
    }

    /// Describes those results that are the lowest of the layers of an image.
    pub(super) fn inside(results: &[Described], layers: &[Digest]) -> Self {
        let mut config = Self::default();
        for parent in -1..layers.len() as i64 - 1 {
            config.layers.push(CacheLayer {
                blob: None,
                parent,
                annotations: None,
            });
        }
        for result in results {
            let chain: Vec<Digest> = result.chain.iter().map(|layer| layer.diff_id).collect();
            if !chain.is_empty() && layers.starts_with(&chain) {
                for (layer, of) in config.layers.iter_mut().zip(&result.chain) {
                    if of.created.is_some() {
                        let annotations = layer.annotations.get_or_insert_default();
                        annotations.created_at = of.created;
                    }
                }
                config.add(result, chain.len() - 1);
            }
        }
        config
    }

    fn add(&mut self, result: &Described, layer: usize) {
        for key in &result.keys {
            self.records.push(CacheRecord {
                digest: *key,
                layers: vec![CacheResult {
                    layer,
                    created_at: Some(result.created),
                }],
                muster: Some(result.facts.clone()),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The diff ids of the layers, in the document's order; a layer on several others is there several times.
    pub(super) fn diff_ids(&self) -> Vec<Digest> {
        let ids = self
            .layers
            .iter()
            .map(|layer| layer.annotations.as_ref()?.diff_id);
        ids.flatten().collect()
    }

    /// Says where the layers are, in the document's order.
    pub(super) fn place(&mut self, blobs: &[LayerBlob]) {
        for (layer, blob) in self.layers.iter_mut().zip(blobs) {
            layer.blob = Some(blob.digest);
            let annotations = layer.annotations.get_or_insert_default();
            annotations.media_type.clone_from(&blob.media_type);
            annotations.size = blob.size;
        }
    }

    /// Fills in what the configuration of an image leaves out.
    pub(super) fn of_image(&mut self, blobs: &[LayerBlob], diff_ids: &[Digest]) {
        self.place(blobs);
        for (layer, diff_id) in self.layers.iter_mut().zip(diff_ids) {
            let annotations = layer.annotations.get_or_insert_default();
            annotations.diff_id = Some(*diff_id);
        }
    }

    /// The results of ours that are whole.
    pub(super) fn offered(&self) -> Vec<Offered> {
        let mut offered: Vec<Offered> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for record in &self.records {
            let (Some(facts), [result, ..]) = (&record.muster, &record.layers[..]) else {
                continue;
            };
            if let Some(at) = known.get(&*facts.id) {
                offered[*at].described.keys.push(record.digest);
                continue;
            }
            let Some((chain, blobs)) = self.chain(result.layer) else {
                continue;
            };
            if facts.own > chain.len() {
                continue;
            }
            known.insert(&facts.id, offered.len());
            offered.push(Offered {
                described: Described {
                    facts: facts.clone(),
                    keys: vec![record.digest],
                    created: result.created_at.unwrap_or_default(),
                    chain,
                },
                blobs,
            });
        }
        offered
    }

    /// The layers from the lowest up to one; `None`: the document does not say enough, or makes no sense.
    fn chain(&self, top: usize) -> Option<(Vec<ChainLayer>, Vec<LayerBlob>)> {
        let (mut chain, mut blobs) = (Vec::new(), Vec::new());
        let mut at = top;
        loop {
            let layer = self.layers.get(at)?;
            let annotations = layer.annotations.as_ref()?;
            chain.push(ChainLayer {
                diff_id: annotations.diff_id?,
                created: annotations.created_at,
            });
            blobs.push(LayerBlob {
                digest: layer.blob?,
                size: annotations.size,
                media_type: annotations.media_type.clone(),
            });
            if layer.parent < 0 {
                break;
            }
            at = usize::try_from(layer.parent).ok()?;
            if chain.len() >= DEPTH_MAX {
                return None;
            }
        }
        chain.reverse();
        blobs.reverse();
        Some((chain, blobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    /// `RUN` makes what `COPY --from` of it lays on the same base.
    #[test]
    fn the_same_layer_made_twice_keeps_both_of_its_times() {
        let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
        let made = |id: &str, second| {
            let mut made = result(id, &[id], &["base", "layer"], 1);
            made.chain[1].created = at(second);
            made
        };
        let mut config = CacheConfig::of(&[made("run", 1), made("copy", 2), made("again", 1)]);
        let layers = config.diff_ids();
        assert_eq!(layers, ["base", "layer", "layer"].map(digest));
        let blob = |digest: &Digest| LayerBlob {
            digest: *digest,
            size: 1,
            media_type: "x".to_owned(),
        };
        config.place(&layers.iter().map(blob).collect::<Vec<_>>());
        let offered = config.offered();
        let times = offered
            .iter()
            .map(|offered| offered.described.chain[1].created);
        assert_eq!(times.collect::<Vec<_>>(), [at(1), at(2), at(1)]);
    }

    fn result(id: &str, keys: &[&str], chain: &[&str], own: usize) -> Described {
        Described {
            facts: Facts {
                id: id.to_owned(),
                description: format!("RUN {id}"),
                kind: Kind::Regular,
                own,
            },
            keys: keys.iter().map(|key| digest(key)).collect(),
            created: Timestamp::UNIX_EPOCH,
            chain: chain
                .iter()
                .map(|layer| ChainLayer {
                    diff_id: digest(layer),
                    created: None,
                })
                .collect(),
        }
    }

    fn blobs(config: &CacheConfig) -> Vec<LayerBlob> {
        let blob = |diff_id: &Digest| LayerBlob {
            digest: digest(&format!("gzip of {diff_id}")),
            size: 7,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        };
        config.diff_ids().iter().map(blob).collect()
    }

    #[test]
    fn what_is_described_is_offered() {
        let results = [
            result("one", &["k1", "k2"], &["base", "a"], 1),
            result("two", &["k3"], &["base", "a", "b"], 1),
            // The same layer on another one.
            result("three", &["k4"], &["b"], 1),
            result("nothing", &["k5"], &[], 0),
        ];
        let mut config = CacheConfig::of(&results);
        assert_eq!(config.layers.len(), 4);
        config.place(&blobs(&config));
        let json = serde_json::to_string(&config).unwrap();
        let read: CacheConfig = serde_json::from_str(&json).unwrap();
        let offered = read.offered();
        let described: Vec<Described> = offered
            .iter()
            .map(|offered| offered.described.clone())
            .collect();
        assert_eq!(described, results[..3]);
        assert_eq!(offered[1].blobs.len(), 3);
        assert_eq!(offered[1].blobs[0], offered[0].blobs[0]);
    }

    #[test]
    fn an_image_offers_what_its_own_layers_are() {
        let layers = ["base", "a", "b"].map(digest);
        let results = [
            result("one", &["k1"], &["base", "a"], 1),
            result("other", &["k2"], &["base", "x"], 1),
        ];
        let config = CacheConfig::inside(&results, &layers);
        let json = serde_json::to_string(&config).unwrap();
        let mut read: CacheConfig = serde_json::from_str(&json).unwrap();
        assert!(read.offered().is_empty(), "it does not say where they are");
        let blob = |diff_id: &Digest| LayerBlob {
            digest: *diff_id,
            size: 1,
            media_type: "x".to_owned(),
        };
        read.of_image(&layers.each_ref().map(blob), &layers);
        let offered = read.offered();
        assert_eq!(offered.len(), 1);
        assert_eq!(offered[0].described, results[0]);
    }

    #[test]
    fn documents_of_others_and_nonsense_offer_nothing() {
        for text in [
            "{}",
            r#"{"layers":[{"blob":"sha256:4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce"}],"records":[]}"#,
            // BuildKit's own: no facts.
            r#"{"layers":[{"parent":-1}],"records":[{"digest":"sha256:4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce","layers":[{"layer":0}]}]}"#,
        ] {
            let config: CacheConfig = serde_json::from_str(text).unwrap();
            assert!(config.offered().is_empty(), "{text}");
        }
        // A circle.
        let mut config = CacheConfig::of(&[result("one", &["k"], &["a", "b"], 1)]);
        config.place(&blobs(&config));
        config.layers[0].parent = 1;
        assert!(config.offered().is_empty());
        config.layers[0].parent = 9;
        assert!(config.offered().is_empty());
    }
}
