//! The facade's operation that writes to a registry.

use agent_image::{Credentials, PushRequest};

use super::Engine;
use super::images::ProgressStream;
use super::pull::parse;
use crate::error::Result;

impl Engine {
    /// Pushes an image: `name:tag`, or with a name alone all its tags. Dropping the stream cancels it; the registry then
    /// has no tag that is not whole.
    pub fn push_image(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
    ) -> Result<ProgressStream> {
        let request = PushRequest {
            image: None,
            reference: parse(reference)?,
            credentials,
        };
        Ok(self.exchange(move |shared, cancel, sink| {
            let (images, registries) = (&shared.images, &shared.registries);
            for pushed in images.push(registries, &request, cancel, sink)? {
                shared.image_moved(&pushed.reference, "push");
            }
            Ok(())
        }))
    }
}
