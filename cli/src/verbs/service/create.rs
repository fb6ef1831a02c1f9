//! `service create`.

use super::{credentials, look_up, pin, wait, warn};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::service::CreateFlags;
use crate::out;
use clap::Args;
use compose::converge::Expected;

/// Create a new service
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster service create --name web --replicas 3 -p 8080:80 nginx
  muster service create --mode global --network backend agent:2")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    flags: CreateFlags,
    /// Image, and the arguments in place of the image's own command
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "IMAGE [COMMAND] [ARG...]"
    )]
    image_and_command: Vec<String>,
}

pub(super) async fn run(session: &Session, args: CreateArgs) -> Outcome {
    let bad = |reason: String| Failure::new(1, reason);
    let CreateArgs {
        flags,
        image_and_command,
    } = args;
    let (image, command) = image_and_command
        .split_first()
        .expect("the command line requires an image");
    let client = session.client().await?;
    let known = look_up(client, flags.named().map_err(bad)?).await?;
    let mut spec = flags.spec(image, command, &known).map_err(bad)?;
    let scalars = &flags.scalars;
    let auth = credentials(scalars.with_registry_auth, image).await?;
    if !scalars.no_resolve_image {
        pin(client, &mut spec, auth.as_ref()).await;
    }
    let made = client.create_service(&spec, auth.as_ref()).await?;
    warn(&made.warnings);
    out::line(&made.id)?;
    if scalars.detach {
        return Ok(0);
    }
    wait(client, &[(made.id, Expected::Forward)], scalars.quiet).await
}
