//! `build`: the flags of `docker buildx build` as one build.
//! Source: docker/buildx `commands/build.go`, docker/cli `cli/command/image/build.go`.

use crate::buildx::job::{AnswerFormat, Job, call};
use crate::buildx::options::{
    add_hosts, assignments, build_args, check_attestations, check_builder, each, entitlements,
    listed, outputs, pairs,
};
use crate::buildx::run::{self, Results};
use crate::buildx::verbs::DebugFlag;
use crate::buildx::{answer, record};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::devices;
use crate::out;
use crate::render::build_progress::{BuildProgress, Mode};
use crate::render::units::ram_in_bytes;
use agent_api::build::{BuildRequest, BuildResources, Call, ProgressDetail};
use agent_api::client::build::{
    BuildSpec, CacheDestination, CacheSource, DockerfilePlace, OutputSpec, SecretSpec, SshSpec,
};
use clap::Args;
use std::path::{Path, PathBuf};

/// Build an image from a Dockerfile
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  muster build -t app .
  muster build --target test --progress plain .
  muster build --ssh default=$HOME/.ssh/id_ed25519 --secret id=token,env=TOKEN .
  muster build -o out https://example.com/app.git#main")]
pub(crate) struct BuildArgs {
    /// Add a custom host-to-IP mapping (format: "host:ip")
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Allow extra privileged entitlement (network.host, security.insecure)
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Add annotation to the image
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Attestation parameters (only "disabled=true": images are not attested)
    #[arg(long)]
    attest: Vec<String>,
    /// Set build-time variables
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Additional build contexts (e.g., name=path)
    #[arg(long, value_name = "NAME=PLACE")]
    build_context: Vec<String>,
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    /// External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")
    #[arg(long)]
    cache_from: Vec<String>,
    /// Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")
    #[arg(long)]
    cache_to: Vec<String>,
    /// Method for evaluating build ("build", "check", "outline", "targets")
    #[arg(long, default_value = "build", hide_default_value = true)]
    call: String,
    /// Set the parent cgroup for the "RUN" instructions during build
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Shorthand for "--call=check"
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(crate) debug: DebugFlag,
    /// Name of the Dockerfile (default: "PATH/Dockerfile")
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Set metadata for an image
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Shorthand for "--output=type=docker"
    #[arg(long)]
    load: bool,
    /// Write build result metadata to a file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Set the networking mode for the "RUN" instructions during build
    #[arg(long, alias = "net", default_value = "", hide_default_value = true)]
    network: String,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Do not cache specified stages
    #[arg(long, value_name = "STAGE")]
    no_cache_filter: Vec<String>,
    /// Output destination (format: "type=local,dest=path")
    #[arg(short, long)]
    output: Vec<String>,
    /// Set target platform for build
    #[arg(long)]
    platform: Vec<String>,
    /// Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson")
    #[arg(long)]
    progress: Option<String>,
    /// Shorthand for "--attest=type=provenance" (only "false": images are not attested)
    #[arg(long)]
    provenance: Option<String>,
    /// Always attempt to pull all referenced images
    #[arg(long)]
    pull: bool,
    /// Shorthand for "--output=type=registry"
    #[arg(long)]
    push: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Shorthand for "--attest=type=sbom" (only "false": images are not attested)
    #[arg(long)]
    sbom: Option<String>,
    /// Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")
    #[arg(long)]
    secret: Vec<String>,
    /// Shared memory size for build containers
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// SSH agent socket or keys to expose to the build (format: "default|ID[=SOCKET|KEY,KEY,...]")
    #[arg(long)]
    ssh: Vec<String>,
    /// Name and optionally a tag (format: "name:tag")
    #[arg(short, long)]
    tag: Vec<String>,
    /// Set the target build stage to build
    #[arg(long, default_value = "", hide_default_value = true)]
    target: String,
    /// Ulimit options
    #[arg(long)]
    ulimit: Vec<String>,
    #[command(flatten)]
    classic: ClassicFlags,
    /// A directory, an address, or - for standard input
    #[arg(value_name = "PATH | URL | -")]
    context: String,
}

/// Flags of Docker's classic builder that scripts still have.
#[derive(Debug, Default, Args)]
struct ClassicFlags {
    #[arg(short, long, hide = true, value_name = "BYTES")]
    memory: Option<String>,
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    #[arg(short, long, hide = true, default_value_t = 0)]
    cpu_shares: i64,
    #[arg(long, hide = true, default_value_t = 0)]
    cpu_period: i64,
    #[arg(long, hide = true, default_value_t = 0)]
    cpu_quota: i64,
    #[arg(long, hide = true, default_value = "")]
    cpuset_cpus: String,
    #[arg(long, hide = true, default_value = "")]
    cpuset_mems: String,
    /// There are no intermediate containers to remove, or to keep.
    #[arg(long, hide = true)]
    rm: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    /// A context on this host is not sent, so there is nothing to compress.
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    #[arg(long, hide = true)]
    squash: bool,
    #[arg(long, hide = true, default_value = "")]
    isolation: String,
    #[arg(long, hide = true)]
    security_opt: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: BuildArgs) -> Outcome {
    let mode = Mode::choose(args.progress.as_deref(), args.quiet)?;
    let job = args.job()?;
    if job.spec.outputs.iter().any(OutputSpec::is_stdout) && out::stdout_is_terminal() {
        let reason = "dest file is required for this output: refusing to write to console";
        return Err(Failure::new(1, format!("failed to build: {reason}")).into());
    }
    let asked = job.spec.request.call;
    let format = job.answer;
    let client = session.client().await?;
    let mut progress = BuildProgress::new(mode, session.driver());
    let mut results = Results::new();
    run::run(client, vec![job], &mut progress, &mut results)
        .await
        .map_err(run::explain)?;
    let result = &results[0];
    if asked == Call::Build {
        progress.show_warnings(session.debug, session.debug_hint());
    }
    if let Some(path) = &args.iidfile {
        record::write_id(path, result)?;
    }
    if let Some(path) = &args.metadata_file {
        record::write_metadata(path, result)?;
    }
    if let Some(answer) = &result.answer {
        let (text, failed) = answer::render(answer, format, &args.dockerfile_shown());
        out::text(&text)?;
        return Ok(u8::from(failed));
    }
    if args.quiet && !result.image_id.is_empty() {
        out::line(&result.image_id)?;
    }
    Ok(0)
}

impl BuildArgs {
    /// The build that the flags describe.
    fn job(&self) -> Result<Job, Failure> {
        let fail = |reason: String| Failure::new(1, format!("failed to build: {reason}"));
        check_builder(self.builder.as_deref())?;
        self.classic.check().map_err(fail)?;
        check_attestations(
            &self.attest,
            self.provenance.as_deref(),
            self.sbom.as_deref(),
        )
        .map_err(fail)?;
        let (call, answer) = if self.check {
            (Call::Check, AnswerFormat::Text)
        } else {
            call(&self.call).map_err(fail)?
        };
        let spec = BuildSpec {
            context: self.context.clone(),
            dockerfile: self.dockerfile(),
            named_contexts: pairs("build-context", &self.build_context).map_err(fail)?,
            secrets: each(&self.secret, SecretSpec::parse).map_err(fail)?,
            ssh: each(&self.ssh, SshSpec::parse).map_err(fail)?,
            outputs: outputs(&self.output, self.load, self.push).map_err(fail)?,
            cache_from: each(&self.cache_from, CacheSource::parse).map_err(fail)?,
            cache_to: each(&self.cache_to, CacheDestination::parse).map_err(fail)?,
            settled: false,
            request: self.request(call).map_err(fail)?,
        };
        Ok(Job {
            spec,
            answer,
            ..Job::default()
        })
    }

    fn request(&self, call: Call) -> Result<BuildRequest, String> {
        let size = |text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => ram_in_bytes(text).ok_or_else(|| format!("invalid size {text:?}")),
        };
        let ulimits = self.ulimit.iter().map(|flag| devices::ulimit(flag));
        Ok(BuildRequest {
            call,
            build_args: build_args(&self.build_arg),
            labels: assignments(&self.label),
            annotations: pairs("annotation", &self.annotation)?,
            target: self.target.clone(),
            platforms: listed(&self.platform),
            tags: self.tag.clone(),
            no_cache: self.no_cache,
            no_cache_filter: listed(&self.no_cache_filter),
            pull: self.pull,
            network: self.network.clone(),
            add_hosts: add_hosts(&self.add_host)?,
            shm_size: size(&self.shm_size)?,
            ulimits: ulimits.collect::<Result<_, _>>()?,
            cgroup_parent: self.cgroup_parent.clone().unwrap_or_default(),
            resources: self.classic.resources()?,
            allow: entitlements(&self.allow, &self.network)?,
            progress: if self.quiet {
                ProgressDetail::Warnings
            } else {
                ProgressDetail::Full
            },
            ..BuildRequest::default()
        })
    }

    fn dockerfile(&self) -> DockerfilePlace {
        match self.file.as_deref() {
            None | Some("") => DockerfilePlace::Default,
            Some("-") => DockerfilePlace::Stdin,
            Some(path) => DockerfilePlace::Path(path.into()),
        }
    }

    /// What lints call the Dockerfile: a path that an editor can open.
    fn dockerfile_shown(&self) -> String {
        match self.file.as_deref() {
            Some(file) if file != "-" => file.to_owned(),
            _ if Path::new(&self.context).is_dir() => Path::new(&self.context)
                .join("Dockerfile")
                .display()
                .to_string()
                .trim_start_matches("./")
                .to_owned(),
            _ => "Dockerfile".to_owned(),
        }
    }
}

impl ClassicFlags {
    fn check(&self) -> Result<(), String> {
        if self.squash {
            return Err("--squash is not supported: use a multi-stage build".to_owned());
        }
        if !matches!(self.isolation.as_str(), "" | "default") {
            return Err(format!("--isolation {} is not supported", self.isolation));
        }
        if let Some(option) = self.security_opt.first() {
            return Err(format!(
                "--security-opt {option} is not supported: use RUN --security=insecure with --allow security.insecure"
            ));
        }
        Ok(())
    }

    fn resources(&self) -> Result<BuildResources, String> {
        let size = |text: &Option<String>| match text.as_deref() {
            None => Ok(0),
            Some("-1") => Ok(-1),
            Some(text) => ram_in_bytes(text).ok_or_else(|| format!("invalid size {text:?}")),
        };
        Ok(BuildResources {
            memory: size(&self.memory)?,
            memory_swap: size(&self.memory_swap)?,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::build::Entitlement;

    fn args(context: &str) -> BuildArgs {
        BuildArgs {
            context: context.to_owned(),
            ..BuildArgs::default()
        }
    }

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn flags_become_a_request() {
        let args = BuildArgs {
            tag: strings(&["a:1", "b"]),
            build_arg: strings(&["A=1", "NOT_SET_ANYWHERE"]),
            label: strings(&["l", "m=n=o"]),
            platform: strings(&["linux/amd64,linux/arm64"]),
            no_cache_filter: strings(&["x", "y,z"]),
            add_host: strings(&["h:1.2.3.4", "six:::1", "gw=host-gateway"]),
            ulimit: strings(&["nofile=10:20"]),
            shm_size: Some("64m".to_owned()),
            network: "host".to_owned(),
            allow: strings(&["security.insecure"]),
            ..args(".")
        };
        let request = args.request(Call::Build).unwrap();
        assert_eq!(request.tags, ["a:1", "b"]);
        assert_eq!(request.build_args.len(), 1);
        assert_eq!(
            (request.labels["l"].as_str(), request.labels["m"].as_str()),
            ("", "n=o")
        );
        assert_eq!(request.platforms, ["linux/amd64", "linux/arm64"]);
        assert_eq!(request.no_cache_filter, ["x", "y", "z"]);
        assert_eq!(
            request.add_hosts,
            ["h:1.2.3.4", "six:::1", "gw:host-gateway"]
        );
        assert_eq!((request.shm_size, request.ulimits[0].hard), (64 << 20, 20));
        assert_eq!(
            request.allow,
            [Entitlement::SecurityInsecure, Entitlement::NetworkHost]
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (given, word) in [
            (
                BuildArgs {
                    builder: Some("other".to_owned()),
                    ..args(".")
                },
                "other",
            ),
            (
                BuildArgs {
                    provenance: Some("mode=max".to_owned()),
                    ..args(".")
                },
                "provenance",
            ),
            (
                BuildArgs {
                    sbom: Some("true".to_owned()),
                    ..args(".")
                },
                "sbom",
            ),
            (
                BuildArgs {
                    attest: strings(&["type=sbom"]),
                    ..args(".")
                },
                "attest",
            ),
            (
                BuildArgs {
                    allow: strings(&["device"]),
                    ..args(".")
                },
                "device",
            ),
            (
                BuildArgs {
                    call: "frob".to_owned(),
                    ..args(".")
                },
                "frob",
            ),
            (
                BuildArgs {
                    add_host: strings(&["x"]),
                    ..args(".")
                },
                "add-host",
            ),
            (
                BuildArgs {
                    classic: ClassicFlags {
                        squash: true,
                        ..ClassicFlags::default()
                    },
                    ..args(".")
                },
                "squash",
            ),
            (
                BuildArgs {
                    annotation: strings(&["x"]),
                    ..args(".")
                },
                "annotation",
            ),
        ] {
            let error = given.job().unwrap_err().message;
            assert!(error.contains(word), "{error}");
        }
        let fine = BuildArgs {
            provenance: Some("false".to_owned()),
            attest: strings(&["type=sbom,disabled=true"]),
            ..args(".")
        };
        assert!(fine.job().is_ok());
    }
}
