//! What the endpoints of swarm mode have in common: they name the version they saw and send one request to the managers.

use cluster::control::{Reply, Request};

use super::error::HttpError;
use super::{Call, to_the_end};

/// Go's spellings of a boolean.
const TRUE: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];
const FALSE: [&str; 7] = ["", "0", "f", "F", "FALSE", "false", "False"];

impl Call {
    /// The version of the object the client saw; there must be one.
    pub(super) fn object_version(&self, kind: &str) -> Result<u64, HttpError> {
        let text = self.query.text("version");
        text.parse().map_err(|_| {
            HttpError::bad_request(match kind {
                "secret" | "config" => format!("invalid {kind} version"),
                _ => format!(
                    "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: invalid syntax"
                ),
            })
        })
    }

    /// A parameter that is a boolean and nothing else.
    pub(super) fn boolean(&self, name: &str) -> Result<bool, HttpError> {
        let text = self.query.text(name);
        if TRUE.contains(&text) {
            Ok(true)
        } else if FALSE.contains(&text) {
            Ok(false)
        } else {
            Err(HttpError::bad_request(format!(
                "invalid value for {name}: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
            )))
        }
    }

    /// Changes the cluster.
    pub(super) async fn change(&self, request: Request) -> Result<(), HttpError> {
        self.decided(request).await.map(drop)
    }

    /// Makes an object of the cluster; gives its id.
    pub(super) async fn create(&self, request: Request) -> Result<String, HttpError> {
        match self.decided(request).await? {
            Reply::Created(id) => Ok(id),
            Reply::Done => Err(HttpError::internal(
                "the managers made the object but did not say its id",
            )),
        }
    }

    async fn decided(&self, request: Request) -> Result<Reply, HttpError> {
        let swarm = self.swarm.clone();
        to_the_end(async move { swarm.request(request).await }).await
    }
}
