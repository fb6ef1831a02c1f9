//! `run` and `create`. Source: docker/cli `cli/command/container/run.go`, `create.go`.
//!
//! Order of an attached run: create → attach → wait (its headers) → start. So no output and no exit is missed.

use crate::attached::{self, Ended};
use crate::connect::Session;
use crate::failure::{Failure, Outcome, USAGE, describe, start_code, usage};
use crate::flags::container::ContainerFlags;
use crate::out;
use crate::terminal::{DetachKeys, RawMode};
use agent_api::client::{AttachOptions, ClientError, WaitCondition};
use agent_api::{Client, ContainerCreateRequest};
use anyhow::Context as _;
use clap::Args;
use std::io::{IsTerminal as _, Write as _};

/// Create and run a new container from an image
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster run --rm busybox echo hello
  muster run -it --rm debian bash
  muster run -d --name web -p 8080:80 -v data:/srv nginx")]
pub(crate) struct RunArgs {
    /// Run the container in the background and print its id
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Proxy received signals to the process
    #[arg(long, default_value = "true", hide_default_value = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    container: ContainerFlags,
    /// Image, and the command and its arguments in place of the image's own
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "IMAGE [COMMAND] [ARG...]"
    )]
    image_and_command: Vec<String>,
}

/// Create a new container
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster create --name web -p 8080:80 nginx && muster start web")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    container: ContainerFlags,
    /// Image, and the command and its arguments in place of the image's own
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "IMAGE [COMMAND] [ARG...]"
    )]
    image_and_command: Vec<String>,
}

pub(crate) async fn create(session: &Session, args: CreateArgs) -> Outcome {
    let (image, command) = args.image_and_command.split_first().context("no image")?;
    let request = args
        .container
        .request(image, command, false)
        .map_err(usage)?;
    let client = session.client().await?;
    let id = make(client, &args.container, &request).await?;
    out::line(id)?;
    Ok(0)
}

pub(crate) async fn run(session: &Session, args: RunArgs) -> Outcome {
    let (image, command) = args.image_and_command.split_first().context("no image")?;
    let flags = &args.container;
    let mut request = flags.request(image, command, args.detach).map_err(usage)?;
    if args.detach && !flags.attach.is_empty() {
        return Err(usage(
            "conflicting options: cannot specify both --attach and --detach",
        ));
    }
    let stdin = request.config.attach_stdin;
    if !args.detach && stdin && flags.tty && !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            1,
            "the input device is not a TTY: leave out -t when input is piped",
        )
        .into());
    }
    if let Some((rows, columns)) = crate::terminal::size() {
        request.host_config.console_size = [rows.into(), columns.into()];
    }
    let client = session.client().await?;
    let id = make(client, flags, &request)
        .await
        .map_err(|error| with_help(&error, "run", USAGE))?;
    let running = Running {
        id: &id,
        request: &request,
        detach: args.detach,
        detach_keys: args.detach_keys.as_deref(),
        sig_proxy: args.sig_proxy,
    };
    running.run(client).await
}

/// A container that was created to be run at once.
pub(crate) struct Running<'a> {
    pub(crate) id: &'a str,
    pub(crate) request: &'a ContainerCreateRequest,
    pub(crate) detach: bool,
    pub(crate) detach_keys: Option<&'a str>,
    pub(crate) sig_proxy: bool,
}

impl Running<'_> {
    /// Starts it; attached, the exit code is the container's.
    pub(crate) async fn run(&self, client: &Client) -> Outcome {
        if self.detach {
            client
                .start_container(self.id)
                .await
                .map_err(start_failure)?;
            out::line(self.id)?;
            return Ok(0);
        }
        self.attached(client).await
    }

    async fn attached(&self, client: &Client) -> Outcome {
        let config = &self.request.config;
        let (tty, remove) = (config.tty, self.request.host_config.auto_remove);
        let keys = DetachKeys::parse(self.detach_keys).map_err(usage)?;
        // Before the container runs: a signal that comes now is for it.
        let signals = if self.sig_proxy {
            attached::catch_signals()?
        } else {
            Vec::new()
        };
        let options = AttachOptions {
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
            stream: true,
            logs: false,
            detach_keys: self.detach_keys.map(str::to_owned),
        };
        let hijacked = client.attach_container(self.id, &options).await?;
        let condition = if remove {
            WaitCondition::Removed
        } else {
            WaitCondition::NextExit
        };
        let wait = client.wait_container(self.id, condition).await?;
        let raw = if tty && config.attach_stdin {
            Some(RawMode::enter()?)
        } else {
            None
        };
        if let Err(error) = client.start_container(self.id).await {
            drop(raw);
            if remove {
                // The daemon removes what could not be started; wait for it, so that the name is free again.
                drop(hijacked);
                let _ = wait.result().await;
            }
            return Err(start_failure(error));
        }
        let ended = async {
            if attached::pump(hijacked, config.attach_stdin, tty, &keys).await? == Ended::Detached {
                return anyhow::Ok(None);
            }
            Ok(Some(wait.result().await?))
        };
        let ended = attached::accompany(client, self.id, tty, signals, ended).await;
        drop(raw);
        match ended? {
            // Detached: it runs on.
            None => Ok(0),
            Some(result) => match result.error {
                Some(error) => Err(Failure::new(USAGE, error.message).into()),
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "exit takes the low byte"
                )]
                None => Ok(result.status_code as u8),
            },
        }
    }
}

/// Creates the container, fetching its image when the policy says so, and writes the cidfile.
async fn make(
    client: &Client,
    flags: &ContainerFlags,
    request: &ContainerCreateRequest,
) -> anyhow::Result<String> {
    if let Some(path) = &flags.cidfile
        && std::path::Path::new(path).exists()
    {
        let reason = format!(
            "container ID file found, make sure the other container isn't running or delete {path}"
        );
        return Err(Failure::new(USAGE, reason).into());
    }
    let image = &request.config.image;
    let create =
        || client.create_container(flags.name.as_deref(), flags.platform.as_deref(), request);
    let created = match flags.pull.as_str() {
        "always" => {
            super::pull::pull(client, image, flags.platform.as_deref(), flags.quiet).await?;
            create().await?
        }
        "missing" | "" => match create().await {
            Err(ClientError::Api {
                status: 404,
                message,
            }) if message.contains("No such image") => {
                out::note(format!(
                    "Unable to find image '{}' locally",
                    super::pull::with_tag(image)
                ));
                super::pull::pull(client, image, flags.platform.as_deref(), flags.quiet).await?;
                create().await?
            }
            result => result?,
        },
        "never" => create().await?,
        other => {
            return Err(usage(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            )));
        }
    };
    for warning in created.warnings {
        out::note(format!("WARNING: {warning}"));
    }
    if let Some(path) = &flags.cidfile {
        let write = || std::fs::File::create_new(path)?.write_all(created.id.as_bytes());
        write().with_context(|| format!("cannot write the container's id to {path}"))?;
    }
    Ok(created.id)
}

fn start_failure(error: ClientError) -> anyhow::Error {
    let code = start_code(&error.to_string());
    with_help(&error.into(), "run", code)
}

/// Docker's closing line below an error of `run` and `create`.
fn with_help(error: &anyhow::Error, verb: &str, code: u8) -> anyhow::Error {
    let code = error
        .downcast_ref::<Failure>()
        .map_or(code, |failure| failure.code);
    let text = describe(error);
    let text = text.strip_prefix("muster: ").unwrap_or(&text);
    Failure::new(
        code,
        format!("{text}\n\nRun 'muster {verb} --help' for more information"),
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::bools::as_pflag;
    use clap::{Command, FromArgMatches as _};

    fn parse(words: &[&str]) -> RunArgs {
        let command = as_pflag(RunArgs::augment_args(
            Command::new("run").disable_help_flag(true),
        ));
        let matches = command
            .try_get_matches_from(std::iter::once(&"run").chain(words))
            .unwrap();
        RunArgs::from_arg_matches(&matches).unwrap()
    }

    fn request(words: &[&str]) -> Result<ContainerCreateRequest, String> {
        let args = parse(words);
        let (image, command) = args.image_and_command.split_first().unwrap();
        args.container.request(image, command, args.detach)
    }

    #[test]
    fn flags_end_at_the_image_and_the_last_one_wins() {
        let args = parse(&[
            "-it",
            "--rm=false",
            "--name",
            "a",
            "--name=b",
            "-hbox",
            "img",
            "-it",
            "--rm",
            "--",
            "x",
        ]);
        assert!(args.container.interactive && args.container.tty && !args.container.rm);
        assert_eq!(
            (
                args.container.name.as_deref(),
                args.container.hostname.as_str()
            ),
            (Some("b"), "box")
        );
        assert_eq!(args.image_and_command, ["img", "-it", "--rm", "--", "x"]);
        assert!(args.sig_proxy && !parse(&["--sig-proxy=false", "img"]).sig_proxy);
    }

    #[test]
    fn the_request_is_what_docker_sends() {
        let request = request(&[
            "-d",
            "-p",
            "8080:80",
            "-v",
            "data:/data",
            "-v",
            "/anon",
            "--mount",
            "type=tmpfs,dst=/t",
            "-m",
            "64m",
            "--cpus",
            "1.5",
            "--restart",
            "on-failure:3",
            "-e",
            "A=1",
            "-l",
            "x=y",
            "--entrypoint",
            "",
            "--health-cmd",
            "true",
            "--health-interval",
            "5s",
            "--network",
            "net",
            "--network-alias",
            "web",
            "--add-host",
            "h=10.0.0.1",
            "--memory-swap",
            "-1",
            "--ulimit",
            "nofile=10:20",
            "--no-healthcheck=false",
            "img",
            "sleep",
            "1",
        ])
        .unwrap();
        let json = serde_json::to_value(&request).unwrap();
        let expected = serde_json::json!({
            "Image": "img", "Cmd": ["sleep", "1"], "Entrypoint": [""], "Env": ["A=1"], "Labels": {"x": "y"},
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/anon": {}}, "AttachStdout": false,
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&json[name], value, "{name}");
        }
        assert_eq!(
            json["Healthcheck"]["Test"],
            serde_json::json!(["CMD-SHELL", "true"])
        );
        assert_eq!(json["Healthcheck"]["Interval"], 5_000_000_000_i64);
        let host = &json["HostConfig"];
        let expected = serde_json::json!({
            "Binds": ["data:/data"], "NetworkMode": "net", "Memory": 64 << 20, "NanoCpus": 1_500_000_000, "MemorySwap": -1,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "ExtraHosts": ["h:10.0.0.1"],
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}],
            "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&host[name], value, "{name}");
        }
        assert_eq!(
            json["NetworkingConfig"]["EndpointsConfig"]["net"]["Aliases"],
            serde_json::json!(["web"])
        );
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for (words, reason) in [
            (
                &["--rm", "--restart", "always", "img"][..],
                "--restart and --rm",
            ),
            (&["-a", "stdio", "img"], "valid streams"),
            (
                &["--no-healthcheck", "--health-cmd", "x", "img"],
                "--no-healthcheck conflicts",
            ),
            (&["--add-host", "x", "img"], "--add-host"),
            (
                &["--security-opt", "seccomp=/does/not/exist", "img"],
                "seccomp profile",
            ),
            (
                &["--network", "host", "--network", "a", "img"],
                "cannot be combined",
            ),
            (&["-p", "x:y", "img"], "invalid port"),
            (&["--kernel-memory", "1m", "img"], "no longer supported"),
        ] {
            let message = request(words).unwrap_err();
            assert!(message.contains(reason), "{words:?}: {message}");
        }
    }
}
