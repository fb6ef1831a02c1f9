//! Logging in to registries and out of them. Texts, prompts and what is stored where are Docker's.
//! Source: docker/cli `cli/command/registry/{login,logout}.go`, `cli/command/registry.go`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::terminal;
use agent_api::Client;
use agent_api::client::ClientError;
use agent_api::client::credentials::{ConfigFile, HUB, Kept, Login, hostname, key_of};
use anyhow::Context as _;
use clap::Args;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

/// Bytes of a password on stdin.
const PASSWORD_MAX: u64 = 1 << 20;

/// Authenticate to a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster login -u me --password-stdin registry.example.com < token")]
pub(crate) struct LoginArgs {
    /// Username
    #[arg(short, long)]
    username: Option<String>,
    /// Password or Personal Access Token (PAT)
    #[arg(short, long)]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Registry; Docker Hub by default
    server: Option<String>,
}

/// Log out from a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster logout registry.example.com")]
pub(crate) struct LogoutArgs {
    /// Registry; Docker Hub by default
    server: Option<String>,
}

pub(crate) async fn login(session: &Session, args: LoginArgs) -> Outcome {
    if args.password.is_some() {
        out::note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if args.password_stdin {
            let reason = "conflicting options: cannot specify both --password and --password-stdin";
            return Err(Failure::new(1, reason).into());
        }
    }
    let mut given = Login {
        server: key_of(args.server.as_deref().unwrap_or_default()),
        username: args.username.unwrap_or_default(),
        password: args.password.unwrap_or_default(),
        identity_token: String::new(),
    };
    if args.password_stdin {
        if given.username.is_empty() {
            let reason = "the --password-stdin option requires --username to be set";
            return Err(Failure::new(1, reason).into());
        }
        given.password = password_from_stdin()?;
    }
    let mut config = ConfigFile::load()?;
    let known = config.get(&given.server).await?;
    let nothing_given = given.username.is_empty() && given.password.is_empty();
    if let Some(known) = known.clone().filter(|_| nothing_given) {
        let name = match known.username.is_empty() {
            true => String::new(),
            false => format!(" [Username: {}]", known.username),
        };
        out::note(format!(
            "Authenticating with existing credentials...{name}\n\n Info -> To login with a different account, run 'muster logout' followed by 'muster login'\n\n"
        ));
        match session.client().await?.log_in(&known).await {
            Ok(reply) => return keep(&mut config, known, reply.identity_token, false).await,
            Err(error @ ClientError::Api { .. }) => {
                out::note(format!("Login did not succeed, error: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    complete(&mut given, known.map(|known| known.username))?;
    let client: &Client = session.client().await?;
    let reply = client.log_in(&given).await?;
    keep(&mut config, given, reply.identity_token, true).await
}

/// Asks for what is missing.
fn complete(login: &mut Login, known: Option<String>) -> anyhow::Result<()> {
    if !login.username.is_empty() && !login.password.is_empty() {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let reason = "Error: Cannot perform an interactive login from a non TTY device";
        return Err(Failure::new(1, reason).into());
    }
    if login.username.is_empty() {
        let known = known.filter(|known| !known.is_empty());
        match &known {
            Some(known) => out::text(&format!("Username ({known}): "))?,
            None => out::text("Username: ")?,
        }
        let mut name = String::new();
        io::stdin().lock().read_line(&mut name)?;
        login.username = match name.trim() {
            "" => known.unwrap_or_default(),
            name => name.to_owned(),
        };
        if login.username.is_empty() {
            return Err(Failure::new(1, "Error: Non-null Username Required").into());
        }
    }
    if login.password.is_empty() {
        out::text("Password: ")?;
        let password = terminal::read_secret();
        out::line("")?;
        login.password = password.context("cannot read the password")?;
        if login.password.is_empty() {
            return Err(Failure::new(1, "Error: Password Required").into());
        }
    }
    Ok(())
}

fn password_from_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin()
        .take(PASSWORD_MAX)
        .read_to_string(&mut text)
        .context("cannot read the password from stdin")?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Puts credentials that are good where they belong; warns when they are new and lie open there.
async fn keep(
    config: &mut ConfigFile,
    mut login: Login,
    identity_token: String,
    new: bool,
) -> Outcome {
    if !identity_token.is_empty() {
        login.password.clear();
        login.identity_token = identity_token;
    }
    let before = config.get(&login.server).await?;
    let kept = config.keep(&login).await?;
    if let Kept::Plainly { path } = kept
        && new
        && before.as_ref() != Some(&login)
    {
        out::note(format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    out::line("Login Succeeded")?;
    Ok(0)
}

pub(crate) async fn logout(args: LogoutArgs) -> Outcome {
    let address = args.server.unwrap_or_default();
    let key = key_of(&address);
    let mut config = ConfigFile::load()?;
    let mut servers = vec![key.clone()];
    if key != HUB {
        // Older versions of Docker stored URLs.
        servers.extend([format!("http://{key}"), format!("https://{key}")]);
    }
    if !address.is_empty() && hostname(&address) != address && key != HUB {
        servers.insert(0, address);
    }
    out::line(format!("Removing login credentials for {key}"))?;
    let mut errors = Vec::new();
    for server in servers {
        if let Err(error) = config.forget(&server).await {
            errors.push(format!("{server}: {error}"));
        }
    }
    match errors.is_empty() {
        true => Ok(0),
        false => {
            let reason = format!("could not erase credentials:\n{}", errors.join("\n"));
            Err(Failure::new(1, reason).into())
        }
    }
}
