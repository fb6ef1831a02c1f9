//! The files of a result as a tar that the client stores or unpacks.
//!
//! Source: buildkit `exporter/{local,tar}/export.go`: with several platforms each has a directory, `linux_amd64`.

use std::io::Write as _;

use agent_image::build::{Rewrite, View, write_tar};

use super::{Built, Export};
use crate::builder::failure::Failure;
use crate::builder::progress::Seat;

impl Export<'_> {
    /// Sends the files of results on a channel, below a directory for each platform if `split`.
    pub(super) async fn files(
        &self,
        what: &str,
        id: &str,
        split: bool,
        built: &[Built],
    ) -> Result<(), Failure> {
        let seat = Seat::begin(self.progress, what);
        let sent = self.send_files(id, split, built).await;
        match &sent {
            Ok(()) => seat.done(),
            Err(failure) => seat.failed(failure.message()),
        }
        sent
    }

    async fn send_files(&self, id: &str, split: bool, built: &[Built]) -> Result<(), Failure> {
        let mut output = self.open(id).await?;
        let trees: Vec<(Option<String>, View, Rewrite)> = built
            .iter()
            .map(|built| {
                let directory = split.then(|| built.platform().to_string().replace('/', "_"));
                let view = built
                    .files
                    .as_ref()
                    .map_or_else(View::empty, |files| files.view());
                let rewrite = built
                    .plan
                    .source_date_epoch
                    .map_or(Rewrite::Keep, Rewrite::Clamp);
                (directory, view, rewrite)
            })
            .collect();
        let cancel = self.cancel.clone();
        let written = tokio::task::spawn_blocking(move || {
            for (directory, view, rewrite) in trees {
                let prefix = directory.unwrap_or_default();
                write_tar(&view, &prefix, rewrite, &mut output.bytes, &cancel)?;
            }
            // Two empty blocks end an archive.
            let ended = output
                .bytes
                .write_all(&[0; 1024])
                .and_then(|()| output.bytes.flush());
            ended.map_err(|error| Failure::system(format!("cannot send the output: {error}")))?;
            Ok::<_, Failure>(output.taken)
        });
        let taken = written.await.map_err(|_| Failure::cancelled())??;
        match taken.await {
            Ok(true) => Ok(()),
            _ => Err(Failure::system("the client did not take the whole output")),
        }
    }

    /// A channel to the client.
    pub(super) async fn open(&self, id: &str) -> Result<crate::builder::session::Output, Failure> {
        let asked = async { self.session?.output(id).await };
        asked.await.ok_or_else(|| {
            Failure::invalid("this client cannot take the output: build with `muster build` or with muster as docker-buildx")
        })
    }
}
