//! What a client asks to be built.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Value of the `Upgrade` header that asks for this protocol.
pub const BUILD_PROTOCOL: &str = "muster-build";
/// Longest [`BuildRequest`], bytes of JSON.
pub const MAX_BUILD_REQUEST: usize = 8 << 20;

/// One build: the flags of `docker buildx build`, with everything that is a path of the client resolved by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BuildRequest {
    /// What is wanted of the Dockerfile.
    pub call: Call,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// The main context.
    pub context: ContextOffer,
    /// Further contexts (`--build-context`): they stand in for stages and images of their name.
    pub named_contexts: IndexMap<String, ContextOffer>,
    /// Values of `ARG`s, those of the client's environment filled in.
    pub build_args: IndexMap<String, String>,
    /// Labels of the image.
    pub labels: IndexMap<String, String>,
    /// `[index|manifest|index-descriptor|manifest-descriptor[os/arch]:]name` → value.
    pub annotations: IndexMap<String, String>,
    /// Stage to build, by name or number; the last one when empty.
    pub target: String,
    /// `os/arch[/variant]`; the daemon's own when empty.
    pub platforms: Vec<String>,
    /// Names of the image, with or without a tag.
    pub tags: Vec<String>,
    /// Do not look up the cache.
    pub no_cache: bool,
    /// Do not look up the cache for these stages.
    pub no_cache_filter: Vec<String>,
    /// Ask the registry for images that are there already.
    pub pull: bool,
    /// Ids of the secrets the client can give.
    pub secrets: Vec<String>,
    /// Ids of the SSH agents the client can reach.
    pub ssh: Vec<String>,
    /// Network of `RUN`: `default`, `none`, `host` or the name of a network; empty is `default`.
    pub network: String,
    /// Lines of `/etc/hosts`, `host:ip`; `host-gateway` is an address.
    pub add_hosts: Vec<String>,
    /// Bytes of `/dev/shm`; 0 is the engine's default.
    pub shm_size: i64,
    /// Limits of the processes of `RUN`.
    pub ulimits: Vec<crate::Ulimit>,
    /// Parent of the control groups of `RUN`.
    pub cgroup_parent: String,
    /// Limits of each `RUN`.
    pub resources: BuildResources,
    /// Entitlements that are granted.
    pub allow: Vec<Entitlement>,
    /// Where cached steps may come from besides the daemon's own cache.
    pub cache_from: Vec<CacheImport>,
    /// Where the cache goes besides the daemon's own.
    pub cache_to: Vec<CacheExport>,
    /// What becomes of the result; the daemon's image store when empty.
    pub outputs: Vec<Output>,
    /// Credentials by the registry's host (`https://index.docker.io/v1/` for Docker Hub).
    pub auths: IndexMap<String, RegistryCredentials>,
    /// The client can be asked for credentials of a registry that `auths` does not name, when they are needed
    /// ([`ChannelPurpose::Credentials`](super::ChannelPurpose::Credentials)).
    pub ask_credentials: bool,
    /// What of the progress is to be sent.
    pub progress: ProgressDetail,
    /// Name under which `POST /build/cancel` finds this build; empty for none.
    pub build_id: String,
}

/// What is wanted of a Dockerfile (`--call`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Call {
    /// Build it.
    #[default]
    Build,
    /// Lint it.
    Check,
    /// Tell which arguments, secrets, agents and cache mounts the target uses.
    Outline,
    /// List its stages.
    Targets,
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum DockerfileSource {
    /// A file of the main context, `<path>.dockerignore` beside it; for contexts the client cannot look into.
    Context {
        /// Relative to the context's root.
        path: String,
    },
    /// Sent along.
    Inline {
        /// As messages are to call it, mostly `Dockerfile`.
        name: String,
        /// Its text.
        text: String,
        /// The `.dockerignore` that goes with it, `None` when the context has none or cannot be looked into.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ignore: Option<IgnoreFile>,
    },
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::Context {
            path: "Dockerfile".to_owned(),
        }
    }
}

/// A `.dockerignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IgnoreFile {
    /// As messages are to call it: `.dockerignore` or `<Dockerfile>.dockerignore`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Where the files of a context come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum ContextOffer {
    /// There are none.
    #[default]
    Empty,
    /// A directory that the client has open. A daemon on the same host reads it through `/proc/<client>/fd/<fd>` once
    /// device and inode agree; any other opens a channel ([`ChannelPurpose::Context`](super::ChannelPurpose::Context)) and gets an uncompressed tar
    /// that has been filtered by the ignore file of [`DockerfileSource::Inline`] or, for named contexts, by their own.
    Directory {
        /// Descriptor of the directory in the client.
        fd: i32,
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
        /// As the user wrote it, for messages.
        path: String,
        /// The `.dockerignore` of a named context; the main one's is with the Dockerfile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ignore: Option<IgnoreFile>,
    },
    /// A tar on a channel ([`ChannelPurpose::Context`](super::ChannelPurpose::Context)), perhaps compressed; its own `.dockerignore` applies.
    Stream,
    /// A git repository or something to be fetched by http: the daemon does it.
    Remote {
        /// As the user wrote it.
        url: String,
    },
    /// The file system of an image (`docker-image://`).
    Image {
        /// Name or id.
        reference: String,
    },
    /// An OCI layout as a tar on a channel (`oci-layout://`).
    OciLayout {
        /// Tag or digest within it; empty when it has only one image.
        reference: String,
    },
}

/// Limits of each `RUN`; 0 and empty are none. Memory in bytes, the rest as in a container's `HostConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BuildResources {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap together, -1 for no limit of swap.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds in each period.
    pub cpu_quota: i64,
    /// `0-2,4`
    pub cpuset_cpus: String,
    /// `0-1`
    pub cpuset_mems: String,
}

/// What a build may do beyond the sandbox, when the user grants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Entitlement {
    /// `RUN --network=host`
    #[serde(rename = "network.host")]
    NetworkHost,
    /// `RUN --security=insecure`
    #[serde(rename = "security.insecure")]
    SecurityInsecure,
}

/// An external cache to read (`--cache-from`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", deny_unknown_fields)]
pub enum CacheImport {
    /// In a registry, of its own or inside of an image.
    Registry {
        /// Its name.
        reference: String,
    },
    /// In a directory of the client: an OCI layout as a tar on a channel ([`ChannelPurpose::Cache`](super::ChannelPurpose::Cache)).
    Local {
        /// Names the channel.
        id: String,
        /// The tag within the layout, `latest` unless given.
        tag: String,
        /// Digest within the layout in place of the tag; empty for none.
        digest: String,
    },
}

/// Where the cache is written to (`--cache-to`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", deny_unknown_fields)]
pub enum CacheExport {
    /// Into the configuration of the image that is built.
    Inline,
    /// To a registry.
    Registry {
        /// Name it gets.
        reference: String,
        /// What is written.
        mode: CacheMode,
        /// How its layers are packed.
        compression: LayerCompression,
        /// An error of the export does not fail the build.
        ignore_error: bool,
    },
    /// To a directory of the client: an OCI layout as a tar on a channel ([`ChannelPurpose::Output`](super::ChannelPurpose::Output)).
    Local {
        /// Names the channel.
        id: String,
        /// The tag within the layout.
        tag: String,
        /// What is written.
        mode: CacheMode,
        /// How its layers are packed.
        compression: LayerCompression,
        /// An error of the export does not fail the build.
        ignore_error: bool,
    },
}

/// Which steps an exported cache has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CacheMode {
    /// Those whose layers the result has.
    #[default]
    Min,
    /// All.
    Max,
}

/// How layers are packed where they leave the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LayerCompression {
    /// The algorithm; the output's own default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<CompressionKind>,
    /// Its level; its own default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// Also layers that have another form already.
    pub force: bool,
}

/// Algorithms for layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CompressionKind {
    /// None.
    Uncompressed,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// What becomes of the result (`--output`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", deny_unknown_fields)]
pub enum Output {
    /// An image of the daemon's store, named by [`BuildRequest::tags`] and `names`.
    Image(ImageOutput),
    /// The file system as a tar on a channel ([`ChannelPurpose::Output`](super::ChannelPurpose::Output)) that the client unpacks.
    Local {
        /// Names the channel.
        id: String,
        /// A directory for each platform, also for one; absent: when there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        platform_split: Option<bool>,
    },
    /// The file system as a tar on a channel.
    Tar {
        /// Names the channel.
        id: String,
        /// As for `Local`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        platform_split: Option<bool>,
    },
    /// An OCI layout as a tar on a channel.
    Oci(ArchiveOutput),
    /// What `docker save` writes, as a tar on a channel.
    Docker(ArchiveOutput),
    /// Nothing: only the cache is filled.
    CacheOnly,
}

/// An image that the store, a registry or both get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ImageOutput {
    /// Names besides the request's tags.
    pub names: Vec<String>,
    /// Send it to the registries of its names afterwards.
    pub push: bool,
    /// Send it without a tag.
    pub push_by_digest: bool,
    /// How layers are packed for the registry.
    pub compression: LayerCompression,
    /// OCI's media types in place of Docker's; absent: the daemon's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci_media_types: Option<bool>,
    /// No file of a new layer is younger than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
}

/// An image as one archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ArchiveOutput {
    /// Names the channel.
    pub id: String,
    /// Names besides the request's tags.
    pub names: Vec<String>,
    /// How layers are packed.
    pub compression: LayerCompression,
    /// OCI's media types in place of Docker's; absent: those of the kind of archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci_media_types: Option<bool>,
    /// No file of a new layer is younger than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
}

/// What of the progress is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProgressDetail {
    /// Everything.
    #[default]
    Full,
    /// Nothing but warnings.
    Warnings,
}

/// Credentials of one registry: the members of `X-Registry-Config`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistryCredentials {
    /// User.
    pub username: String,
    /// Password, or a token that stands for it.
    pub password: String,
    /// `user:password` in base64, in place of both.
    pub auth: String,
    /// Refresh token of OAuth 2.
    pub identitytoken: String,
    /// Bearer token that is sent as it is.
    pub registrytoken: String,
    /// The registry.
    pub serveraddress: String,
}

impl std::fmt::Debug for RegistryCredentials {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryCredentials")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_read_as_they_were_written() {
        let request = BuildRequest {
            dockerfile: DockerfileSource::Inline {
                name: "Dockerfile".to_owned(),
                text: "FROM scratch".to_owned(),
                ignore: None,
            },
            context: ContextOffer::Directory {
                fd: 5,
                device: 1,
                inode: 2,
                path: ".".to_owned(),
                ignore: None,
            },
            outputs: vec![
                Output::Image(ImageOutput::default()),
                Output::CacheOnly,
                Output::Oci(ArchiveOutput::default()),
            ],
            cache_from: vec![CacheImport::Registry {
                reference: "a".to_owned(),
            }],
            allow: vec![Entitlement::NetworkHost],
            ..BuildRequest::default()
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(
            serde_json::from_str::<BuildRequest>(&text).unwrap(),
            request
        );
        assert_eq!(
            serde_json::from_str::<BuildRequest>("{}").unwrap(),
            BuildRequest::default()
        );
    }

    #[test]
    fn what_nobody_knows_is_not_dropped_silently() {
        for unknown in [
            json!({"frob": 1}),
            json!({"outputs": [{"type": "image", "frob": 1}]}),
            json!({"outputs": [{"type": "local", "id": "x", "frob": 1}]}),
            json!({"cacheTo": [{"type": "gha"}]}),
            json!({"resources": {"frob": 1}}),
        ] {
            let read = serde_json::from_value::<BuildRequest>(unknown.clone());
            assert!(read.is_err(), "{unknown} was read as {read:?}");
        }
    }

    #[test]
    fn no_password_is_printed() {
        let credentials = RegistryCredentials {
            username: "u".to_owned(),
            password: "hush".to_owned(),
            ..RegistryCredentials::default()
        };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
