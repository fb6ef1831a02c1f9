//! The facade's operations on images: thin over the image store, plus what only containers know (who uses an image).

use std::collections::HashMap;
use std::sync::Arc;

use agent_api::{
    ContainerConfig, ContainerStatus, DriverData, Empty, Filters, HealthConfig, ImageDeleteItem,
    ImageHistoryItem, ImageInspect, ImageMetadata, ImageSummary, Labels, ProgressDetail,
    ProgressMessage, PruneResponse, RootFs,
};
use agent_image::{
    Image, ImageId, ImageUse, ListFilter, PruneFilter, Reference, Removed, RunConfig,
};
use futures_util::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::inspect::STORAGE_DRIVER;
use super::shared::{Shared, blocking};
use super::{ByteReceiver, Engine, byte_pipe, list};
use crate::error::{Error, Result};

/// Progress messages that may wait for the client.
pub(super) const PROGRESS_QUEUE: usize = 64;

/// Progress of a long operation; an error is its last item.
pub type ProgressStream = BoxStream<'static, Result<ProgressMessage>>;

/// What to import as a one-layer image.
pub struct ImageImport {
    /// Name of the new image; empty for none.
    pub repository: String,
    /// Its tag; empty means `latest`.
    pub tag: String,
    /// Text for the history.
    pub message: String,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// `os[/arch[/variant]]`; empty means this machine's.
    pub platform: String,
}

/// Which images to list.
#[derive(Debug, Default)]
pub struct ImageListing {
    /// Intermediate ones, too.
    pub all: bool,
    /// Tell how much of each other images have, too.
    pub shared_size: bool,
    /// Docker's filters.
    pub filters: Filters,
}

impl Engine {
    /// Loads the images of a docker-archive or OCI-layout tar: those for `platform` (`os/architecture[/variant]`), or this
    /// machine's where an archive offers a choice.
    pub async fn load_images(
        &self,
        mut archive: ByteReceiver,
        platform: Option<String>,
        quiet: bool,
    ) -> Result<ProgressStream> {
        Ok(self.with_progress(quiet, move |shared, progress| {
            let options = agent_image::LoadOptions { platform };
            let loaded = shared.images.load(&mut archive, &options, progress)?;
            for image in loaded {
                shared.image_event(&image.id, "load");
            }
            Ok(())
        }))
    }

    /// Makes an image of a root file system tar.
    pub async fn import_image(
        &self,
        mut archive: ByteReceiver,
        import: ImageImport,
    ) -> Result<ProgressStream> {
        let reference = match import.repository.as_str() {
            "" => None,
            repository => Some(named(repository, &import.tag)?),
        };
        let options = agent_image::ImportOptions {
            reference: reference.clone(),
            changes: import.changes,
            message: import.message,
            platform: Some(import.platform).filter(|platform| !platform.is_empty()),
        };
        Ok(self.with_progress(false, move |shared, progress| {
            let id = shared.images.import(&mut archive, &options, progress)?;
            if let Some(name) = &reference {
                shared.image_named(&id, name);
            }
            shared.image_event(&id, "import");
            Ok(())
        }))
    }

    /// Runs blocking work that reports progress. Dropping the stream does not stop the work; its input ending does.
    fn with_progress(
        &self,
        quiet: bool,
        work: impl FnOnce(&Shared, agent_image::ProgressSink<'_>) -> Result<()> + Send + 'static,
    ) -> ProgressStream {
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
        let shared = Arc::clone(&self.shared);
        self.shared.transfers.spawn(move || {
            let sink = |message: agent_image::ProgressMessage| {
                // Quiet keeps the results and drops the bars.
                if !(quiet && message.progress_detail.is_some()) {
                    let _ = sender.blocking_send(Ok(translate(message)));
                }
            };
            if let Err(error) = work(&shared, &sink) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|message| (message, receiver))
        });
        stream.boxed()
    }

    /// Writes images as a docker-archive that is an OCI layout too. All names are checked before this returns, and that
    /// their images are for `platform`, if one is given.
    pub async fn save_images(
        &self,
        names: Vec<String>,
        platform: Option<String>,
    ) -> Result<ByteReceiver> {
        let shared = Arc::clone(&self.shared);
        let selection = blocking(move || {
            let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
            let selection = shared.images.select(&borrowed)?;
            for id in selection.ids() {
                if let Some(wanted) = &platform
                    && !shared.images.is_for(id, wanted)?
                {
                    return Err(Error::NotFound(format!(
                        "no suitable export target found for platform {wanted}"
                    )));
                }
            }
            Ok(selection)
        })
        .await?;
        let (mut sender, receiver) = byte_pipe();
        let shared = Arc::clone(&self.shared);
        self.shared.transfers.spawn(move || {
            use std::io::Write as _;
            let saved = shared
                .images
                .save_selection(&selection, &mut sender)
                .map_err(std::io::Error::other);
            match saved.and_then(|()| sender.flush()) {
                Ok(()) => {
                    for id in selection.ids() {
                        shared.image_event(id, "save");
                    }
                }
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
                }
            }
        });
        Ok(receiver)
    }

    /// Lists images.
    pub async fn list_images(&self, listing: ImageListing) -> Result<Vec<ImageSummary>> {
        let ImageListing {
            all,
            shared_size,
            filters,
        } = listing;
        filters.allow(&["before", "dangling", "label", "reference", "since", "until"])?;
        let texts = |name: &str| filters.get(name).map(str::to_owned).collect::<Vec<_>>();
        let filter = ListFilter {
            all,
            dangling: filters.boolean("dangling")?,
            references: texts("reference"),
            labels: texts("label"),
            before: texts("before"),
            since: texts("since"),
            until: list::until(&filters)?,
        };
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let images = shared.images.list(&filter)?;
            let counts = container_counts(&shared);
            let mut list: Vec<ImageSummary> = images.iter().map(summary).collect();
            for summary in &mut list {
                summary.containers = counts.get(&summary.id).copied().unwrap_or(0);
            }
            if shared_size {
                let usage = shared.images.disk_usage();
                for (image, summary) in images.iter().zip(&mut list) {
                    let own = usage.images.iter().find(|own| own.id == image.id);
                    summary.shared_size = own.map_or(-1, |own| signed(own.shared_size));
                }
            }
            Ok(list)
        })
        .await
    }

    /// Everything about an image, which must be for `platform` (`os/architecture[/variant]`), if one is given.
    pub async fn inspect_image(
        &self,
        reference: &str,
        platform: Option<&str>,
    ) -> Result<ImageInspect> {
        let (shared, name) = (Arc::clone(&self.shared), reference.to_owned());
        let platform = platform.map(str::to_owned);
        let image =
            blocking(move || Ok(shared.images.inspect_for(&name, platform.as_deref())?)).await?;
        Ok(inspect(&image))
    }

    /// The steps that made an image, newest first. The image must be for `platform`, if one is given.
    pub async fn image_history(
        &self,
        reference: &str,
        platform: Option<&str>,
    ) -> Result<Vec<ImageHistoryItem>> {
        let (shared, name) = (Arc::clone(&self.shared), reference.to_owned());
        let platform = platform.map(str::to_owned);
        let steps = blocking(move || {
            shared.images.inspect_for(&name, platform.as_deref())?;
            Ok(shared.images.history(&name)?)
        })
        .await?;
        let item = |step: agent_image::HistoryEntry| ImageHistoryItem {
            id: step
                .id
                .map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
            created: step.created.map_or(0, jiff::Timestamp::as_second),
            created_by: step.created_by,
            tags: Some(
                step.tags
                    .iter()
                    .map(Reference::familiar)
                    .collect::<Vec<_>>(),
            )
            .filter(|tags| !tags.is_empty()),
            size: signed(step.size),
            comment: step.comment,
        };
        Ok(steps.into_iter().map(item).collect())
    }

    /// Gives an image another name.
    pub async fn tag_image(&self, reference: &str, repository: &str, tag: &str) -> Result<()> {
        let target = named(repository, tag)?;
        let (shared, name) = (Arc::clone(&self.shared), reference.to_owned());
        blocking(move || {
            let id = shared.images.tag(&name, &target)?;
            shared.image_named(&id, &target);
            Ok(())
        })
        .await
    }

    /// Takes off a name, and removes the content when it was the last one.
    pub async fn remove_image(
        &self,
        reference: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<ImageDeleteItem>> {
        let (shared, name) = (Arc::clone(&self.shared), reference.to_owned());
        let removed = blocking(move || {
            let options = agent_image::RemoveOptions { force, no_prune };
            Ok(shared.images.remove(&name, options, || uses(&shared))?)
        })
        .await?;
        Ok(self.report_removed(removed))
    }

    /// Removes images nobody uses.
    pub async fn prune_images(&self, filters: Filters) -> Result<PruneResponse> {
        filters.allow(&["dangling", "label", "label!", "until"])?;
        let texts = |name: &str| filters.get(name).map(str::to_owned).collect::<Vec<_>>();
        let filter = PruneFilter {
            dangling_only: filters.boolean("dangling")?.unwrap_or(true),
            until: list::until(&filters)?,
            labels: texts("label"),
            labels_not: texts("label!"),
        };
        let shared = Arc::clone(&self.shared);
        let pruned = blocking(move || Ok(shared.images.prune(&filter, || uses(&shared))?)).await?;
        let deleted = self.report_removed(pruned.removed);
        self.shared.events.pruned("image", pruned.space_reclaimed);
        Ok(PruneResponse {
            images_deleted: Some(deleted),
            space_reclaimed: pruned.space_reclaimed,
            ..PruneResponse::default()
        })
    }

    /// Removes one image for the garbage collection, unless somebody needs it. Returns the bytes that came free. Blocks.
    pub(crate) fn collect_image(&self, id: &ImageId, last_used: Timestamp) -> Result<u64> {
        let images = &self.shared.images;
        let pruned = images.collect_image(id, Some(last_used), || uses(&self.shared))?;
        self.report_removed(pruned.removed);
        Ok(pruned.space_reclaimed)
    }

    fn report_removed(&self, removed: Vec<Removed>) -> Vec<ImageDeleteItem> {
        let events = &self.shared.events;
        let item = |step| match step {
            Removed::Untagged(name, id, config) => {
                let labels = config.map(|config| config.config.labels.clone());
                let id = id.to_string();
                events.image(&id, &id, "untag", &labels.unwrap_or_default());
                ImageDeleteItem::Untagged(name.familiar())
            }
            Removed::Image(id) => {
                let id = id.to_string();
                // The image is gone, and its labels with it.
                events.image(&id, &id, "delete", &Labels::new());
                ImageDeleteItem::Deleted(id)
            }
            Removed::Layer(chain) => ImageDeleteItem::Deleted(chain.to_string()),
        };
        removed.into_iter().map(item).collect()
    }
}

impl Shared {
    /// Something happened to an image that is here. Blocks.
    pub(crate) fn image_event(&self, id: &ImageId, action: &str) {
        let id = id.to_string();
        self.events.image(&id, &id, action, &self.labels_of(&id));
    }

    /// An image was given a name. Blocks.
    pub(crate) fn image_named(&self, id: &ImageId, name: &Reference) {
        let id = id.to_string();
        let labels = self.labels_of(&id);
        self.events.image(&id, &name.familiar(), "tag", &labels);
    }

    /// A name was pulled or pushed: such events are about the name, not about an image. Blocks.
    pub(crate) fn image_moved(&self, name: &Reference, action: &str) {
        let familiar = name.familiar();
        let labels = self.labels_of(&familiar);
        let repository = name.familiar_repository();
        self.events.image(&familiar, &repository, action, &labels);
    }

    fn labels_of(&self, image: &str) -> Labels {
        let found = self.images.inspect(image);
        found.map_or_else(
            |_| Labels::new(),
            |image| image.config.config.labels.clone(),
        )
    }
}

/// How many containers each image has.
pub(super) fn container_counts(shared: &Shared) -> HashMap<String, i64> {
    let mut counts = HashMap::new();
    for container in shared.registry.pictures() {
        *counts
            .entry(container.definition.image.clone())
            .or_default() += 1;
    }
    counts
}

/// Which containers need which images.
pub(super) fn uses(shared: &Shared) -> Vec<ImageUse> {
    let pictures = shared.registry.pictures();
    let used = pictures.iter().filter_map(|container| {
        let image: ImageId = container.definition.image.parse().ok()?;
        let running = matches!(
            container.state.status,
            ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
        );
        Some(ImageUse {
            image,
            container: container.id().to_owned(),
            running,
        })
    });
    used.collect()
}

pub(super) fn named(repository: &str, tag: &str) -> Result<Reference> {
    let invalid = |error: agent_image::ReferenceError| Error::invalid(error.to_string());
    let reference = Reference::parse(repository).map_err(invalid)?;
    if reference.digest().is_some() {
        return Err(Error::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    match tag {
        "" => Ok(reference.with_default_tag()),
        tag => reference.with_tag(tag).map_err(invalid),
    }
}

pub(super) fn translate(message: agent_image::ProgressMessage) -> ProgressMessage {
    ProgressMessage {
        stream: message.stream,
        status: message.status,
        id: message.id,
        progress_detail: message.progress_detail.map(|detail| ProgressDetail {
            current: detail.current.map(signed),
            total: detail.total.map(signed),
        }),
        aux: message.aux,
        ..ProgressMessage::default()
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn familiar(names: &[Reference]) -> Vec<String> {
    names.iter().map(Reference::familiar).collect()
}

pub(super) fn summary(image: &Image) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        parent_id: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        repo_tags: familiar(&image.tags),
        repo_digests: familiar(&image.digests),
        created: image.config.created.map_or(0, jiff::Timestamp::as_second),
        size: signed(image.size),
        shared_size: -1,
        labels: Some(image.config.config.labels.clone()).filter(|labels| !labels.is_empty()),
        containers: -1,
    }
}

fn inspect(image: &Image) -> ImageInspect {
    let never = || "0001-01-01T00:00:00Z".to_owned();
    let config = &*image.config;
    let layers: Vec<String> = image
        .layers
        .iter()
        .map(|layer| layer.to_string_lossy().into_owned())
        .collect();
    let mut data = agent_api::Labels::new();
    if let Some((upper, lower)) = layers.split_first() {
        if !lower.is_empty() {
            data.insert("LowerDir".to_owned(), lower.join(":"));
        }
        data.insert("UpperDir".to_owned(), upper.clone());
    }
    ImageInspect {
        id: image.id.to_string(),
        repo_tags: familiar(&image.tags),
        repo_digests: familiar(&image.digests),
        parent: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        comment: config.comment.clone(),
        created: config
            .created
            .map_or_else(String::new, |time| time.to_string()),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        config: Some(run_config(&config.config)),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        size: signed(image.size),
        graph_driver: DriverData {
            data: Some(data),
            name: STORAGE_DRIVER.to_owned(),
        },
        root_fs: RootFs {
            kind: "layers".to_owned(),
            layers: config
                .rootfs
                .diff_ids
                .iter()
                .map(ToString::to_string)
                .collect(),
        },
        metadata: ImageMetadata {
            last_tag_time: image
                .last_tagged
                .map_or_else(never, |time| time.to_string()),
        },
    }
}

fn run_config(run: &RunConfig) -> ContainerConfig {
    let set = |names: &indexmap::IndexMap<String, agent_image::Empty>| {
        Some(
            names
                .keys()
                .map(|name| (name.clone(), Empty {}))
                .collect::<agent_api::Set>(),
        )
        .filter(|set| !set.is_empty())
    };
    let list = |words: &Vec<String>| Some(words.clone()).filter(|words| !words.is_empty());
    ContainerConfig {
        user: run.user.clone(),
        exposed_ports: set(&run.exposed_ports),
        env: run.env.clone(),
        entrypoint: run.entrypoint.clone(),
        cmd: run.cmd.clone(),
        volumes: set(&run.volumes),
        working_dir: run.working_dir.clone(),
        labels: run.labels.clone(),
        stop_signal: run.stop_signal.clone(),
        healthcheck: run.healthcheck.as_ref().map(|check| HealthConfig {
            test: Some(check.test.clone()),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        on_build: list(&run.on_build),
        shell: list(&run.shell),
        args_escaped: run.args_escaped,
        ..ContainerConfig::default()
    }
}
