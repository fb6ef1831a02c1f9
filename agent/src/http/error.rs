//! Where errors become HTTP statuses, and nowhere else.
//!
//! The body is `{"message": …}` and a newline, as moby `api/server/middleware.go` and `httpstatus/status.go` write it.

use http::StatusCode;

use super::body::Reply;
use crate::error::Error;

/// A reply that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpError {
    /// Status of the reply.
    pub(super) status: StatusCode,
    /// Text for the user.
    pub(super) message: String,
}

impl HttpError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The request is malformed.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A parameter of the query cannot be read. Docker answers 500 where Go's `strconv` error carries no class.
    pub(super) fn unreadable_number(function: &str, text: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("strconv.{function}: parsing {text:?}: invalid syntax"),
        )
    }

    /// No route.
    pub(super) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// The object does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The request body is longer than what any client has a reason to send.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is longer than {limit} bytes"),
        )
    }

    /// Docker has the endpoint, this daemon does not.
    pub(super) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// The state of the node does not allow it.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// Something that should not fail did.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The reply.
    pub(super) fn into_reply(self) -> Reply {
        super::body::json(
            self.status,
            &agent_api::ErrorResponse {
                message: self.message,
            },
        )
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::InvalidParameter(_) => StatusCode::BAD_REQUEST,
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Error::System(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_the_status_docker_gives_it() {
        let cases: [(Error, u16); 8] = [
            (Error::NotFound("x".into()), 404),
            (Error::InvalidParameter("x".into()), 400),
            (Error::Conflict("x".into()), 409),
            (Error::Forbidden("x".into()), 403),
            (Error::NotImplemented("x".into()), 501),
            (Error::Unavailable("x".into()), 503),
            (Error::Unauthorized("x".into()), 401),
            (Error::System("x".into()), 500),
        ];
        for (error, status) in cases {
            assert_eq!(
                HttpError::from(error),
                HttpError {
                    status: StatusCode::from_u16(status).unwrap(),
                    message: "x".into()
                }
            );
        }
    }
}
