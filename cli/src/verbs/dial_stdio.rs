//! The other end of `ssh://` addresses: what comes on stdin goes to the daemon, what the daemon says goes to stdout.
//! Source: docker/cli `cli/command/system/dial_stdio.go`.

use crate::connect::Session;
use crate::failure::Outcome;
use tokio::io::{AsyncWriteExt as _, stdin, stdout};

pub(crate) async fn run(session: &Session) -> Outcome {
    // Starts the daemon where nobody has yet.
    let client = session.client().await?;
    let connection = client.dial().await?;
    let (mut from, mut to) = tokio::io::split(connection);
    let upward = async {
        tokio::io::copy(&mut stdin(), &mut to).await?;
        // The client has said everything; the daemon may go on.
        to.shutdown().await?;
        std::io::Result::Ok(())
    };
    let downward = async {
        let mut out = stdout();
        tokio::io::copy(&mut from, &mut out).await?;
        out.flush().await
    };
    // Once the daemon has closed its side, nobody listens any more.
    let mut downward = std::pin::pin!(downward);
    tokio::select! {
        done = &mut downward => done?,
        sent = upward => {
            sent?;
            downward.await?;
        }
    }
    Ok(0)
}
