//! Bodies of requests: JSON of bounded size, and archives that are passed on while they arrive.
//!
//! Source: moby `api/server/httputils/httputils.go` (`ReadJSON`, `CheckForJSON`).

use std::fmt::Display;
use std::io;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::Call;
use super::error::HttpError;
use crate::engine::{ByteReceiver, ByteSender, byte_pipe};

/// Longest JSON body. The largest that real clients send are container configurations of some hundred kilobytes.
const MAX_JSON: usize = 8 << 20;

impl Call {
    fn has_body(&self) -> bool {
        !self.body.is_end_stream()
    }

    /// Refuses a body that does not say it is JSON.
    pub(super) fn expect_json(&self) -> Result<(), HttpError> {
        let given = self
            .headers
            .get(CONTENT_TYPE)
            .map_or("", |value| value.to_str().unwrap_or_default());
        if given.is_empty() && !self.has_body() {
            return Ok(());
        }
        let media_type = given
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Ok(()),
            "" => Err(HttpError::bad_request(format!(
                "malformed Content-Type header ({given}): mime: no media type"
            ))),
            _ => Err(HttpError::bad_request(format!(
                "unsupported Content-Type header ({given}): must be 'application/json'"
            ))),
        }
    }

    /// The JSON body; no body is the default.
    pub(super) async fn json_or_default<T: DeserializeOwned + Default>(
        &mut self,
    ) -> Result<T, HttpError> {
        self.expect_json()?;
        match self.has_body() {
            true => self.json().await,
            false => Ok(T::default()),
        }
    }

    /// The JSON body; there must be one.
    pub(super) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, HttpError> {
        self.json_within(MAX_JSON).await
    }

    /// The JSON body, read as Go reads it; there must be one.
    pub(super) async fn go_json<T: DeserializeOwned>(&mut self) -> Result<T, HttpError> {
        self.expect_json()?;
        let bytes = self.bytes(MAX_JSON).await?;
        agent_build::go_json::from_slice(&bytes)
            .map_err(|error| HttpError::bad_request(format!("invalid JSON: {error}")))
    }

    /// The JSON body of at most `limit` bytes; there must be one.
    pub(super) async fn json_within<T: DeserializeOwned>(
        &mut self,
        limit: usize,
    ) -> Result<T, HttpError> {
        self.expect_json()?;
        let bytes = self.bytes(limit).await?;
        parse(&bytes)
    }

    async fn bytes(&mut self, limit: usize) -> Result<Bytes, HttpError> {
        match Limited::new(&mut self.body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpError::too_large(limit)),
            Err(error) => Err(HttpError::bad_request(format!(
                "the request body broke off: {error}"
            ))),
        }
    }

    /// Passes the body on as it arrives; the reader sets the pace. Ends when the reader is gone, and in an error when requests
    /// are cut off.
    pub(super) fn archive(self) -> ByteReceiver {
        let (sender, receiver) = byte_pipe();
        tokio::spawn(feed(self.body, sender, self.cut_off));
        receiver
    }
}

async fn feed<B>(mut body: B, sender: ByteSender, cut_off: CancellationToken)
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    let broken = |reason: &dyn Display| {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the request body broke off: {reason}"),
        )
    };
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // Whoever reads would wait for the client for ever.
            () = cut_off.cancelled() => {
                sender.send(Err(broken(&"the daemon is stopping"))).await;
                return;
            }
        };
        let chunk = match frame {
            None => return,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_trailers) => continue,
            },
            Some(Err(error)) => Err(broken(&error)),
        };
        let last = chunk.is_err();
        if !sender.send(chunk).await || last {
            return;
        }
    }
}

/// Exactly one JSON value.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HttpError> {
    if bytes.trim_ascii().is_empty() {
        return Err(HttpError::bad_request(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        if error.inner().is_eof() {
            return HttpError::bad_request("invalid JSON: unexpected EOF");
        }
        let place = match error.path().to_string().as_str() {
            "." => String::new(),
            path => format!("{path}: "),
        };
        HttpError::bad_request(format!("invalid JSON: {place}{}", error.inner()))
    })?;
    match json.end() {
        Ok(()) => Ok(value),
        Err(_) => Err(HttpError::bad_request("unexpected content after JSON")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::{ContainerCreateRequest, NetworkCreateRequest};
    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;

    fn error<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        parse::<T>(text.as_bytes()).expect_err(text).message
    }

    /// A client that sends nothing more does not keep anybody from stopping.
    #[tokio::test]
    async fn a_body_that_does_not_end_is_cut_off() {
        let begun = Frame::data(Bytes::from_static(b"begun"));
        let body = stream::iter([Ok::<_, io::Error>(begun)]).chain(stream::pending());
        let (sender, mut receiver) = byte_pipe();
        let cut_off = CancellationToken::new();
        let feeding = tokio::spawn(feed(StreamBody::new(body), sender, cut_off.clone()));
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "begun");
        cut_off.cancel();
        let error = receiver.recv().await.unwrap().unwrap_err();
        assert!(
            error.to_string().contains("the daemon is stopping"),
            "{error}"
        );
        feeding.await.unwrap();
        assert!(receiver.recv().await.is_none());
    }

    #[test]
    fn broken_json_is_refused_with_the_place() {
        assert_eq!(
            error::<NetworkCreateRequest>(""),
            "invalid JSON: got EOF while reading request body"
        );
        assert_eq!(
            error::<NetworkCreateRequest>("{"),
            "invalid JSON: unexpected EOF"
        );
        assert_eq!(
            error::<NetworkCreateRequest>("{} {}"),
            "unexpected content after JSON"
        );
        assert_eq!(
            error::<NetworkCreateRequest>(r#"{"IPAM":{"Config":[{"Subnet":7}]}}"#),
            "invalid JSON: IPAM.Config[0].Subnet: invalid type: integer `7`, expected a string at line 1 column 30"
        );
    }

    #[test]
    fn what_real_clients_send_is_read() {
        for text in [
            r#"{"Image":"x","Cmd":"sh","HostConfig":null,"NetworkingConfig":{"EndpointsConfig":{"n":null}}}"#,
            r#"{"Image":"x","Labels":null,"Env":null,"HostConfig":{"PortBindings":null,"Dns":null,"LogConfig":{"Type":"","Config":null}}}"#,
            r#"{"Image":"x","UnknownKey":1}"#,
        ] {
            parse::<ContainerCreateRequest>(text.as_bytes())
                .unwrap_or_else(|error| panic!("{text}: {}", error.message));
        }
    }
}
