//! The model: what a Compose project says, in canonical form. Plain data; no I/O, no parsing of YAML.
//!
//! Field names are the attribute names of the Compose schema and their order is docker compose's output order.
//! Every struct has `extensions` (its `x-*` keys) and `span` (where it was written; see [`crate::Sources`]).

mod build;
mod deploy;
mod mounts;
mod parts;
mod project;
mod record;
mod resources;
mod scalars;
mod service;

pub use build::{Build, SshKeys};
pub use deploy::{
    Deploy, DeployRestartPolicy, DiscreteResource, GenericResource, Placement, PlacementPreference,
    Resource, Resources, UpdateConfig,
};
pub use mounts::{
    BindOptions, ImageOptions, MountType, Port, TmpfsMode, TmpfsOptions, VolumeMount, VolumeOptions,
};
pub use parts::{
    BlkioConfig, CredentialSpec, DependencyCondition, Develop, DeviceMapping, DeviceRequest,
    EnvFile, ExtraHosts, FileReference, Healthcheck, Logging, ModelConfig, Provider,
    ServiceDependency, ServiceHook, ServiceModel, ThrottleDevice, Ulimit, WatchRule, WeightDevice,
};
pub use project::{Extensions, Project};
pub use record::Absent;
pub use resources::{Config, Ipam, IpamPool, Network, Secret, ServiceNetwork, Volume};
pub use scalars::{Bytes, DefaultTrue, DeviceCount, Duration, FileMode, OptOut, Text};
pub use service::{PullPolicy, RestartPolicy, ServiceConfig};
