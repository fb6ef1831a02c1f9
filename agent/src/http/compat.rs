//! What older API versions expect: requests are brought to the newest shape, replies back to the client's. Pure.
//!
//! Source: moby `api/server/router/container/container_routes.go`, `container/inspect.go`, `image/image_routes.go`,
//! `image/inspect_response.go`, `system/system_routes.go`.

use agent_api::{
    ContainerConfig, ContainerCreateRequest, ContainerInspect, EndpointSettings, ImageInspect,
    ImageSummary, MountType, SystemInfo,
};
use serde_json::{Map, Value, json};

use super::error::HttpError;
use super::router::ApiVersion;

/// Whether a container's network is one that a user has made.
fn is_user_defined(network: &str) -> bool {
    !matches!(network, "" | "default" | "bridge" | "host" | "none")
        && !network.starts_with("container:")
}

/// Brings a request to create a container to the newest shape. Returns warnings for the user.
pub(super) fn container_create(
    version: ApiVersion,
    request: &mut ContainerCreateRequest,
) -> Result<Vec<String>, HttpError> {
    let endpoints = &mut request.networking_config.endpoints_config;
    let host = &mut request.host_config;
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".to_owned();
        if let Some(settings) = endpoints.shift_remove("default") {
            endpoints.insert("bridge".to_owned(), settings);
        }
    }
    if version.before(25) {
        host.auto_remove = false;
    }
    if version.before(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".to_owned();
    }
    if version.before(43) {
        host.annotations = None;
    }
    if version.before(42) {
        host.console_size = [0, 0];
    }
    if version.before(44) {
        if let Some(healthcheck) = &mut request.config.healthcheck {
            healthcheck.start_interval = 0;
        }
        if endpoints.len() > 1 {
            let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
            return Err(HttpError::bad_request(format!(
                "Container cannot be created with multiple network endpoints: {}",
                names.join(", ")
            )));
        }
    }
    if version.before(48) {
        endpoints
            .values_mut()
            .for_each(|endpoint| endpoint.gw_priority = 0);
    }
    mounts(version, request)?;
    interface_sysctls(request)?;
    if request
        .host_config
        .resources
        .pids_limit
        .is_some_and(|limit| limit <= 0)
    {
        request.host_config.resources.pids_limit = None;
    }
    let mut warnings = Vec::new();
    warnings.extend(volume_driver(version, request));
    warnings.extend(mac_address(version, request)?);
    Ok(warnings)
}

fn mounts(version: ApiVersion, request: &mut ContainerCreateRequest) -> Result<(), HttpError> {
    for mount in request.host_config.mounts.iter_mut().flatten() {
        let kind = mount.kind;
        if let Some(bind) = &mut mount.bind_options {
            if version.before(40) {
                bind.non_recursive = false;
            }
            if version.before(42) {
                bind.create_mountpoint = false;
            }
            if version.before(44) && bind.read_only_force_recursive {
                return Err(HttpError::bad_request(
                    "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
                ));
            }
        }
        if version.before(42) {
            if kind != MountType::Volume {
                mount.volume_options = None;
            }
            if kind != MountType::Tmpfs {
                mount.tmpfs_options = None;
            }
        } else {
            let misplaced = [
                (
                    "VolumeOptions",
                    mount.volume_options.is_some() && kind != MountType::Volume,
                ),
                (
                    "BindOptions",
                    mount.bind_options.is_some() && kind != MountType::Bind,
                ),
                (
                    "TmpfsOptions",
                    mount.tmpfs_options.is_some() && kind != MountType::Tmpfs,
                ),
            ];
            if let Some((options, _)) = misplaced.into_iter().find(|(_, misplaced)| *misplaced) {
                let kind = json!(kind);
                return Err(HttpError::bad_request(format!(
                    "{options} must not be specified on mount type {kind}"
                )));
            }
        }
        // Read-only was not recursive before 1.44.
        if version.before(44) && kind == MountType::Bind && mount.read_only {
            mount
                .bind_options
                .get_or_insert_default()
                .read_only_non_recursive = true;
        }
        if version.before(45)
            && mount
                .volume_options
                .as_ref()
                .is_some_and(|options| !options.subpath.is_empty())
        {
            return Err(HttpError::bad_request(
                "VolumeOptions.Subpath needs API v1.45 or newer",
            ));
        }
        if version.before(48) && kind == MountType::Image {
            return Err(HttpError::bad_request(
                "Mount type \"Image\" needs API v1.48 or newer",
            ));
        }
    }
    Ok(())
}

/// `net.ipv4.conf.eth0.…` belongs to an endpoint: interfaces do not exist yet when the sysctls of a container are set.
fn interface_sysctls(request: &ContainerCreateRequest) -> Result<(), HttpError> {
    for name in request
        .host_config
        .sysctls
        .iter()
        .flatten()
        .map(|(name, _)| name)
    {
        let parts: Vec<&str> = name.splitn(5, '.').collect();
        if let ["net", _, _, interface, _] = parts[..]
            && interface.starts_with("eth")
        {
            return Err(HttpError::bad_request(format!(
                "interface specific sysctl setting {name:?} must be supplied using driver option 'com.docker.network.endpoint.sysctls'"
            )));
        }
    }
    Ok(())
}

fn volume_driver(version: ApiVersion, request: &ContainerCreateRequest) -> Option<String> {
    if version.before(48) || request.host_config.volume_driver.is_empty() {
        return None;
    }
    let ignored = request.host_config.mounts.iter().flatten().any(|mount| {
        let driver = mount
            .volume_options
            .as_ref()
            .and_then(|options| options.driver_config.as_ref());
        mount.kind == MountType::Volume && driver.is_none_or(|driver| driver.name.is_empty())
    });
    ignored.then(|| {
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead".to_owned()
    })
}

/// Moves the address of the container, the only one there was before API 1.44, to its endpoint.
fn mac_address(
    version: ApiVersion,
    request: &mut ContainerCreateRequest,
) -> Result<Option<String>, HttpError> {
    let address = std::mem::take(&mut request.config.mac_address);
    let endpoints = &mut request.networking_config.endpoints_config;
    if address.is_empty() {
        if version.before(44) {
            endpoints
                .values_mut()
                .for_each(|endpoint| endpoint.mac_address.clear());
        }
        return Ok(None);
    }
    let mode = request.host_config.network_mode.clone();
    let has_endpoint = mode == "bridge" || is_user_defined(&mode);
    if version.before(44) {
        if !has_endpoint {
            return Err(HttpError::bad_request(
                "conflicting options: mac-address and the network mode",
            ));
        }
        // The one endpoint there is, whatever it is called.
        let endpoint = match endpoints.len() {
            0 => endpoints.entry(mode).or_default(),
            _ => endpoints.get_index_mut(0).expect("there is one").1,
        };
        endpoint.mac_address = address;
        return Ok(None);
    }
    if has_endpoint {
        if endpoints.is_empty() {
            endpoints.insert(mode.clone(), EndpointSettings::default());
        }
        let endpoint = endpoints.get_mut(&mode).ok_or_else(|| {
            HttpError::bad_request(
                "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks",
            )
        })?;
        if !endpoint.mac_address.is_empty() && endpoint.mac_address != address {
            return Err(HttpError::bad_request(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
            ));
        }
        endpoint.mac_address = address;
    }
    Ok(Some(
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.".to_owned(),
    ))
}

/// Before API 1.45 the aliases of an endpoint included the short id and the host name.
pub(super) fn container_inspect(version: ApiVersion, container: &mut ContainerInspect) {
    if !version.before(45) {
        return;
    }
    let short = container.id.get(..12).unwrap_or(&container.id).to_owned();
    for (network, endpoint) in &mut container.network_settings.networks {
        if is_user_defined(network) {
            let aliases = endpoint.aliases.get_or_insert_default();
            for alias in [&short, &container.config.hostname] {
                if !aliases.contains(alias) {
                    aliases.push(alias.clone());
                }
            }
        }
    }
}

/// One row of the list of images.
pub(super) fn image_summary(version: ApiVersion, mut image: ImageSummary) -> Value {
    if version.before(43) && image.repo_tags.is_empty() && image.repo_digests.is_empty() {
        image.repo_tags.push("<none>:<none>".to_owned());
        image.repo_digests.push("<none>@<none>".to_owned());
    }
    if version.before(51) {
        image.containers = -1;
    }
    let mut row = json!(image);
    if version.before(44) {
        row["VirtualSize"] = json!(image.size);
    }
    row
}

/// Fields of a container's configuration that an image's configuration showed before API 1.50, always empty.
const NOT_OF_IMAGES: [&str; 10] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Hostname",
    "Image",
    "OpenStdin",
    "StdinOnce",
    "Tty",
    "MacAddress",
];

/// The inspection of an image.
pub(super) fn image_inspect(version: ApiVersion, image: &ImageInspect) -> Value {
    let mut reply = json!(image);
    if let Some(config) = reply.get_mut("Config").and_then(Value::as_object_mut) {
        image_config(version, config);
    }
    if version.before(45) {
        reply["ContainerConfig"] = json!(ContainerConfig::default());
        reply["ContainerConfig"]["Labels"] = Value::Null;
    }
    if version.before(44) {
        reply["VirtualSize"] = json!(image.size);
        if image.created.is_empty() {
            reply["Created"] = json!("0001-01-01T00:00:00Z");
        }
    }
    reply
}

fn image_config(version: ApiVersion, config: &mut Map<String, Value>) {
    if !version.before(50) {
        NOT_OF_IMAGES.iter().for_each(|field| {
            config.shift_remove(*field);
        });
    }
    if config
        .get("Labels")
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        config.insert("Labels".to_owned(), Value::Null);
    }
}

/// The facts about the daemon.
pub(super) fn info(version: ApiVersion, info: &SystemInfo) -> Value {
    let mut reply = json!(info);
    let fields = reply
        .as_object_mut()
        .expect("a struct with named fields is an object");
    if version.before(25)
        && let Some(Value::Array(options)) = fields.get_mut("SecurityOptions")
    {
        // Only names, without `name=` and without parameters.
        for option in options {
            let name = option
                .as_str()
                .and_then(|text| text.split(',').find_map(|part| part.strip_prefix("name=")));
            if let Some(name) = name.map(str::to_owned) {
                *option = json!(name);
            }
        }
    }
    if version.before(49) {
        fields.shift_remove("FirewallBackend");
        for commit in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            if let Some(id) = fields
                .get(commit)
                .and_then(|commit| commit.get("ID"))
                .cloned()
                && id != ""
            {
                fields[commit]["Expected"] = id;
            }
        }
    }
    if version.before(50) {
        fields.insert("BridgeNfIptables".to_owned(), json!(false));
        fields.insert("BridgeNfIp6tables".to_owned(), json!(false));
    }
    if version.before(46) {
        fields.shift_remove("Containerd");
    }
    if let Some(registry) = fields
        .get_mut("RegistryConfig")
        .and_then(Value::as_object_mut)
    {
        for list in [
            "AllowNondistributableArtifactsCIDRs",
            "AllowNondistributableArtifactsHostnames",
        ] {
            match version.before(47) {
                true => drop(registry.insert(list.to_owned(), Value::Null)),
                false => drop(registry.shift_remove(list)),
            }
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> ContainerCreateRequest {
        serde_json::from_str(text).unwrap()
    }

    fn create(minor: u16, text: &str) -> (ContainerCreateRequest, Vec<String>) {
        let mut request = request(text);
        let warnings = container_create(ApiVersion(1, minor), &mut request).unwrap();
        (request, warnings)
    }

    fn refused(minor: u16, text: &str) -> String {
        container_create(ApiVersion(1, minor), &mut request(text))
            .unwrap_err()
            .message
    }

    #[test]
    fn the_default_network_is_bridge() {
        let (request, _) = create(
            51,
            r#"{"HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["a"]}}}}"#,
        );
        assert_eq!(request.host_config.network_mode, "bridge");
        assert_eq!(
            request.networking_config.endpoints_config["bridge"].aliases,
            Some(vec!["a".to_owned()])
        );
    }

    #[test]
    fn several_endpoints_need_1_44() {
        let text = r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}"#;
        assert_eq!(
            refused(43, text),
            "Container cannot be created with multiple network endpoints: a, b"
        );
        assert_eq!(
            create(44, text).0.networking_config.endpoints_config.len(),
            2
        );
    }

    #[test]
    fn the_mac_address_of_a_container_moves_to_its_endpoint() {
        let text = r#"{"MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"n"}}"#;
        for (minor, warned) in [(43, false), (51, true)] {
            let (request, warnings) = create(minor, text);
            assert_eq!(
                request.networking_config.endpoints_config["n"].mac_address, "02:00:00:00:00:01",
                "1.{minor}"
            );
            assert!(request.config.mac_address.is_empty());
            assert_eq!(!warnings.is_empty(), warned);
        }
        let other = r#"{"MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"n"},"NetworkingConfig":{"EndpointsConfig":{"n":{"MacAddress":"02:00:00:00:00:02"}}}}"#;
        assert!(refused(51, other).starts_with("the container-wide MAC address must match"));
        assert_eq!(
            create(43, other).0.networking_config.endpoints_config["n"].mac_address,
            "02:00:00:00:00:01"
        );
        // An old server did not know the endpoint's.
        let endpoint = r#"{"HostConfig":{"NetworkMode":"n"},"NetworkingConfig":{"EndpointsConfig":{"n":{"MacAddress":"02:00:00:00:00:02"}}}}"#;
        assert_eq!(
            create(43, endpoint).0.networking_config.endpoints_config["n"].mac_address,
            ""
        );
        assert_eq!(
            create(44, endpoint).0.networking_config.endpoints_config["n"].mac_address,
            "02:00:00:00:00:02"
        );
    }

    #[test]
    fn defaults_of_old_versions_are_kept() {
        assert_eq!(create(39, "{}").0.host_config.ipc_mode, "shareable");
        assert_eq!(create(40, "{}").0.host_config.ipc_mode, "");
        assert!(
            !create(24, r#"{"HostConfig":{"AutoRemove":true}}"#)
                .0
                .host_config
                .auto_remove
        );
        assert!(
            create(25, r#"{"HostConfig":{"AutoRemove":true}}"#)
                .0
                .host_config
                .auto_remove
        );
        let mount = r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}}"#;
        let non_recursive = |minor| {
            let mounts = create(minor, mount).0.host_config.mounts.unwrap();
            mounts[0]
                .bind_options
                .as_ref()
                .is_some_and(|options| options.read_only_non_recursive)
        };
        assert!(non_recursive(43));
        assert!(!non_recursive(44));
    }

    #[test]
    fn options_of_other_mount_types_are_refused_since_1_42() {
        let text =
            r#"{"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/b","VolumeOptions":{}}]}}"#;
        assert_eq!(
            refused(42, text),
            "VolumeOptions must not be specified on mount type \"tmpfs\""
        );
        assert!(
            create(41, text).0.host_config.mounts.unwrap()[0]
                .volume_options
                .is_none()
        );
        let image = r#"{"HostConfig":{"Mounts":[{"Type":"image","Target":"/b","Source":"i"}]}}"#;
        assert_eq!(
            refused(47, image),
            "Mount type \"Image\" needs API v1.48 or newer"
        );
    }

    #[test]
    fn sysctls_of_an_interface_are_refused() {
        let text = r#"{"HostConfig":{"Sysctls":{"net.ipv6.conf.eth0.forwarding":"1"}}}"#;
        assert!(refused(51, text).contains("com.docker.network.endpoint.sysctls"));
        create(
            51,
            r#"{"HostConfig":{"Sysctls":{"net.ipv6.conf.all.forwarding":"1"}}}"#,
        );
    }

    #[test]
    fn no_limit_of_pids_is_none() {
        assert_eq!(
            create(51, r#"{"HostConfig":{"PidsLimit":-1}}"#)
                .0
                .host_config
                .resources
                .pids_limit,
            None
        );
        assert_eq!(
            create(51, r#"{"HostConfig":{"PidsLimit":5}}"#)
                .0
                .host_config
                .resources
                .pids_limit,
            Some(5)
        );
    }

    #[test]
    fn old_clients_see_the_short_id_among_the_aliases() {
        let mut container = ContainerInspect {
            id: "0123456789abcdef".to_owned(),
            ..ContainerInspect::default()
        };
        container.config.hostname = "h".to_owned();
        for network in ["bridge", "mine"] {
            container
                .network_settings
                .networks
                .insert(network.to_owned(), EndpointSettings::default());
        }
        container_inspect(ApiVersion(1, 45), &mut container);
        assert_eq!(container.network_settings.networks["mine"].aliases, None);
        container_inspect(ApiVersion(1, 44), &mut container);
        assert_eq!(
            container.network_settings.networks["mine"].aliases,
            Some(vec!["0123456789ab".to_owned(), "h".to_owned()])
        );
        assert_eq!(container.network_settings.networks["bridge"].aliases, None);
    }

    /// Key sets as dockerd 28.5 sends them.
    #[test]
    fn images_show_what_each_version_shows() {
        let image = ImageInspect {
            config: Some(ContainerConfig::default()),
            size: 7,
            ..ImageInspect::default()
        };
        let keys = |value: &Value| {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        let newest = image_inspect(ApiVersion(1, 51), &image);
        assert_eq!(
            keys(&newest),
            "Architecture Author Comment Config Created DockerVersion GraphDriver Id Metadata Os Parent RepoDigests RepoTags RootFS Size"
        );
        assert_eq!(
            keys(&newest["Config"]),
            "Cmd Entrypoint Env Labels OnBuild User Volumes WorkingDir"
        );
        let old = image_inspect(ApiVersion(1, 43), &image);
        assert_eq!(
            keys(&old),
            "Architecture Author Comment Config ContainerConfig Created DockerVersion GraphDriver Id Metadata Os Parent RepoDigests RepoTags RootFS Size VirtualSize"
        );
        assert_eq!(
            keys(&old["Config"]),
            "AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env Hostname Image Labels OnBuild OpenStdin StdinOnce Tty User Volumes WorkingDir"
        );
        assert_eq!(old["VirtualSize"], 7);
    }

    #[test]
    fn rows_of_images_show_what_each_version_shows() {
        let row = |minor| {
            image_summary(
                ApiVersion(1, minor),
                ImageSummary {
                    size: 7,
                    containers: 2,
                    ..ImageSummary::default()
                },
            )
        };
        assert_eq!(
            row(51).to_string(),
            r#"{"Id":"","ParentId":"","RepoTags":[],"RepoDigests":[],"Created":0,"Size":7,"SharedSize":0,"Labels":null,"Containers":2}"#
        );
        assert_eq!(row(50)["Containers"], -1);
        assert_eq!(row(43)["VirtualSize"], 7);
        assert_eq!(row(42)["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(row(42)["RepoDigests"], json!(["<none>@<none>"]));
    }

    #[test]
    fn info_shows_what_each_version_shows() {
        let facts = SystemInfo {
            security_options: vec!["name=seccomp,profile=builtin".to_owned()],
            runc_commit: json!({ "ID": "x" }),
            ..SystemInfo::default()
        };
        let newest = info(ApiVersion(1, 51), &facts);
        assert!(newest.get("BridgeNfIptables").is_none());
        assert_eq!(
            newest["SecurityOptions"],
            json!(["name=seccomp,profile=builtin"])
        );
        let old = info(ApiVersion(1, 24), &facts);
        assert_eq!(old["SecurityOptions"], json!(["seccomp"]));
        assert_eq!(old["RuncCommit"], json!({ "ID": "x", "Expected": "x" }));
        assert_eq!(old["BridgeNfIptables"], false);
    }
}
