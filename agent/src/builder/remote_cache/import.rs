//! `--cache-from`: documents are read when a build begins; layers come when a step is found in one of them. A cache that
//! cannot be read is told of, and is a miss.
//!
//! A name is looked for among the images of the store first, as in dockerd (moby `builder-next/adapters/localinlinecache`);
//! one without a cache in it is looked for in its registry all the same.
//!
//! Must not: believe more of a document than that the result is the one of the key that was asked for. Builds that did not
//! name the cache would take its other keys for known.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_api::build::{BuildRequest, CacheImport};
use agent_image::build::Stack;
use agent_image::{Artifact, Credentials, Digest, ImageConfig, LayerBlob, Layout, Reference};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::config::{CONFIG_TYPE, CacheConfig, Offered};
use super::export::parse;
use crate::builder::cache::Lease;
use crate::builder::failure::Failure;
use crate::builder::options;
use crate::builder::progress::{Progress, Seat};
use crate::builder::records::{Made, Record};
use crate::builder::session::Session;
use crate::builder::solve::Key;
use crate::builder::source;
use crate::builder::steps::Shop;
use crate::engine::blocking;

/// Letters of the description of an imported result.
const DESCRIPTION_MAX: usize = 1000;

/// The caches a build may look into besides the daemon's own.
pub(crate) struct Imports {
    shop: Arc<Shop>,
    imports: Vec<Import>,
}

struct Import {
    from: Source,
    offered: Vec<Offered>,
    /// Which of them a key means.
    keys: HashMap<Key, usize>,
    /// Layers could not be had: nothing is looked up any more.
    broken: AtomicBool,
}

/// Where layers are.
enum Source {
    /// Here, as those of an image.
    Store,
    Registry {
        reference: Reference,
        credentials: Option<Credentials>,
    },
    Layout(Arc<Layout>),
}

impl Imports {
    /// Reads the documents of the caches that a request names.
    pub(crate) async fn load(
        shop: &Arc<Shop>,
        request: &BuildRequest,
        session: Option<&Session>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Self {
        let mut imports = Vec::new();
        for from in &request.cache_from {
            let name = match from {
                CacheImport::Registry { reference } => reference.clone(),
                CacheImport::Local { tag, digest, .. } => {
                    let part = if digest.is_empty() { tag } else { digest };
                    format!("local:{part}")
                }
            };
            let seat = Seat::begin(progress, &format!("importing cache manifest from {name}"));
            match read(shop, request, from, session, cancel).await {
                Ok(import) => {
                    imports.push(import);
                    seat.done();
                }
                Err(failure) => seat.failed(failure.message()),
            }
        }
        Self {
            shop: Arc::clone(shop),
            imports,
        }
    }

    /// Whether one of the caches has a result of this key.
    pub(crate) fn offer(&self, key: &Key) -> bool {
        let whole = |import: &&Import| !import.broken.load(Ordering::Relaxed);
        let mut imports = self.imports.iter().filter(whole);
        imports.any(|import| import.keys.contains_key(key))
    }

    /// The result of a key, brought here and recorded; `None`: none of the caches has it.
    pub(crate) async fn bring(&self, key: &Key, cancel: &CancellationToken) -> Option<Lease> {
        for import in &self.imports {
            if import.broken.load(Ordering::Relaxed) {
                continue;
            }
            let Some(at) = import.keys.get(key) else {
                continue;
            };
            match self.fetch(import, &import.offered[*at], key, cancel).await {
                Ok(lease) => return Some(lease),
                Err(error) => {
                    tracing::warn!(%error, "a result of an imported cache cannot be had");
                    import.broken.store(true, Ordering::Relaxed);
                }
            }
        }
        None
    }

    async fn fetch(
        &self,
        import: &Import,
        offered: &Offered,
        key: &Key,
        cancel: &CancellationToken,
    ) -> crate::error::Result<Lease> {
        let described = offered.described.clone();
        let diff_ids: Vec<Digest> = described.chain.iter().map(|layer| layer.diff_id).collect();
        let layers: Vec<(LayerBlob, Digest)> = offered
            .blobs
            .iter()
            .cloned()
            .zip(diff_ids.iter().copied())
            .collect();
        let shared = Arc::clone(self.shop.engine.shared());
        let cache = Arc::clone(&self.shop.cache);
        let cancel = cancel.clone();
        let key = *key;
        let from = match &import.from {
            Source::Store => Source::Store,
            Source::Registry {
                reference,
                credentials,
            } => Source::Registry {
                reference: reference.clone(),
                credentials: credentials.clone(),
            },
            Source::Layout(layout) => Source::Layout(Arc::clone(layout)),
        };
        blocking(move || {
            let images = &shared.images;
            match &from {
                // What has gone since is missed below.
                Source::Store => {}
                Source::Registry {
                    reference,
                    credentials,
                } => {
                    let (registries, quiet) = (&shared.registries, &agent_image::silent);
                    images.fetch_layers(
                        registries,
                        reference,
                        credentials.as_ref(),
                        &layers,
                        &cancel,
                        quiet,
                    )?;
                }
                Source::Layout(layout) => images.layers_of_layout(layout, &layers)?,
            }
            let own = described.facts.own;
            let times = described.chain.iter().map(|layer| layer.created).collect();
            cache.insert(Record::new(
                described.facts.kind,
                shortened(described.facts.description),
                vec![key],
                described.created,
                Made {
                    stack: Stack::of_layers(diff_ids),
                    times,
                    own,
                },
            ))
        })
        .await
    }
}

async fn read(
    shop: &Arc<Shop>,
    request: &BuildRequest,
    from: &CacheImport,
    session: Option<&Session>,
    cancel: &CancellationToken,
) -> Result<Import, Failure> {
    let (source, artifact) = match from {
        CacheImport::Registry { reference: name } => {
            let reference = parse(name)?;
            if let Some(found) = local(shop, &reference).await? {
                return Ok(found);
            }
            let credentials = options::credentials(request, session, name).await;
            let (shared, cancel) = (Arc::clone(shop.engine.shared()), cancel.clone());
            let (asked, user) = (reference.clone(), credentials.clone());
            let artifact = blocking(move || {
                let registries = &shared.registries;
                let found = registries.artifact(&asked, CONFIG_TYPE, None, user.as_ref(), &cancel);
                Ok(found.map_err(agent_image::ImageError::from)?)
            });
            let artifact = artifact.await?;
            let source = Source::Registry {
                reference,
                credentials,
            };
            (source, artifact)
        }
        CacheImport::Local { id, tag, digest } => {
            let given = match session {
                Some(session) => session.cache(id).await,
                None => None,
            };
            let Some(mut given) = given else {
                return Err(Failure::invalid("the client has no such cache"));
            };
            let scratch = shop.work.directory()?;
            let (tag, digest) = (tag.clone(), digest.clone());
            let read = blocking(move || {
                let layout = Layout::read(&mut given, scratch.path())?;
                let artifact = layout.artifact(&tag, &digest, CONFIG_TYPE)?;
                Ok((layout, artifact))
            });
            let (layout, artifact) = read.await?;
            (Source::Layout(Arc::new(layout)), artifact)
        }
    };
    Ok(Import::new(source, &document(&artifact)?))
}

impl Import {
    fn new(from: Source, document: &CacheConfig) -> Self {
        let offered = document.offered();
        let mut keys = HashMap::new();
        for (at, result) in offered.iter().enumerate() {
            for key in &result.described.keys {
                keys.entry(*key).or_insert(at);
            }
        }
        Self {
            from,
            offered,
            keys,
            broken: AtomicBool::new(false),
        }
    }
}

/// The cache in an image of the store. `None`: there is no such image, or nothing in it.
async fn local(shop: &Arc<Shop>, name: &Reference) -> Result<Option<Import>, Failure> {
    let Some(image) = source::local_image(&shop.engine, &name.to_string()).await? else {
        return Ok(None);
    };
    // Blobs are named after what they are unpacked: nobody asks a registry for them.
    let layers = image.layers.iter().map(|diff_id| LayerBlob {
        digest: *diff_id,
        size: 0,
        media_type: String::new(),
    });
    let document = inline(&image.config, &layers.collect::<Vec<_>>())?;
    Ok(document.map(|document| Import::new(Source::Store, &document)))
}

/// A record's description is one line of a table.
fn shortened(mut text: String) -> String {
    let end = text.char_indices().nth(DESCRIPTION_MAX);
    if let Some((end, _)) = end {
        text.truncate(end);
    }
    text
}

/// The document, on its own or inside of an image's configuration.
fn document(artifact: &Artifact) -> Result<CacheConfig, Failure> {
    let bad = |error: serde_json::Error| Failure::invalid(format!("malformed cache: {error}"));
    if artifact.config_type == CONFIG_TYPE {
        return serde_json::from_slice(&artifact.config).map_err(bad);
    }
    Ok(inline(&artifact.config, &artifact.layers)?.unwrap_or_default())
}

/// The document in the configuration of an image whose layers are these. `None`: there is none.
fn inline(config: &[u8], layers: &[LayerBlob]) -> Result<Option<CacheConfig>, Failure> {
    #[derive(Deserialize)]
    struct Inline {
        #[serde(default, rename = "moby.buildkit.cache.v0")]
        cache: Option<String>,
    }
    let bad = |error: serde_json::Error| Failure::invalid(format!("malformed cache: {error}"));
    let inline: Inline = serde_json::from_slice(config).map_err(bad)?;
    let Some(encoded) = inline.cache else {
        return Ok(None);
    };
    let json = STANDARD
        .decode(encoded)
        .map_err(|error| Failure::invalid(format!("malformed cache in an image: {error}")))?;
    let mut document: CacheConfig = serde_json::from_slice(&json).map_err(bad)?;
    let image = ImageConfig::from_json(config).map_err(bad)?;
    document.of_image(layers, &image.rootfs.diff_ids);
    Ok(Some(document))
}
