//! Refusals in the shape of the API that was asked, so that every SDK reports them as errors.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::upstream::Api;

/// What kind of refusal it is: it decides status and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request can not be understood or is not allowed in this form.
    Invalid,
    /// The bearer is missing or not good.
    Unauthorized,
    /// The bearer is good, and its agent's scope does not have this.
    Forbidden,
    /// There is no such route or path.
    NotFound,
    /// The path takes another method.
    Method,
    /// The request is too large.
    TooLarge,
    /// The request does not come in time.
    TooSlow,
    /// The run has too much under way.
    TooMany,
    /// The proxy failed.
    Internal,
    /// The provider can not be reached or gave no answer that can be passed on.
    BadUpstream,
    /// The proxy can not decide or reach what it needs: it fails closed, and trying again is worth it.
    Unavailable,
    /// The provider was silent for too long.
    Timeout,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind.
    pub kind: Kind,
    /// What was wrong and what to do.
    pub message: String,
}

/// How soon a refusal that passes may be tried again, in seconds.
const RETRY_AFTER: &str = "1";

impl Kind {
    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadUpstream => StatusCode::BAD_GATEWAY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The error's type as the Messages API names it.
    const fn anthropic(self) -> &'static str {
        match self {
            Self::Invalid | Self::Method => "invalid_request_error",
            Self::Unauthorized => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::NotFound => "not_found_error",
            Self::TooLarge => "request_too_large",
            Self::TooMany => "rate_limit_error",
            Self::Internal | Self::BadUpstream | Self::Unavailable => "api_error",
            Self::TooSlow | Self::Timeout => "timeout_error",
        }
    }

    /// The error's type and code as the Chat Completions API names them.
    const fn openai(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Invalid | Self::TooLarge | Self::TooSlow | Self::Method => ("invalid_request_error", None),
            Self::Unauthorized => ("invalid_request_error", Some("invalid_api_key")),
            Self::Forbidden => ("insufficient_permissions", None),
            Self::NotFound => ("invalid_request_error", Some("model_not_found")),
            Self::TooMany => ("requests", Some("rate_limit_exceeded")),
            Self::Internal | Self::BadUpstream | Self::Unavailable | Self::Timeout => ("server_error", None),
        }
    }
}

impl Refusal {
    /// A refusal of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request can not be understood or is not allowed in this form.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// The bearer is missing or not good.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, message)
    }

    /// The proxy can not decide or reach what it needs.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// The refusal as an answer of `api`.
    pub fn into_response(self, api: Api) -> Response {
        let message = self.message;
        let body = match api {
            Api::Anthropic => json!({
                "type": "error",
                "error": { "type": self.kind.anthropic(), "message": message },
            }),
            Api::OpenAi => {
                let (kind, code) = self.kind.openai();
                json!({ "error": { "type": kind, "message": message, "param": null, "code": code } })
            }
        };
        let mut response = (self.kind.status(), Json(body)).into_response();
        if matches!(self.kind, Kind::Unavailable | Kind::TooMany) {
            let pause = HeaderValue::from_static(RETRY_AFTER);
            response.headers_mut().insert(header::RETRY_AFTER, pause);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(kind: Kind, api: Api) -> serde_json::Value {
        let response = Refusal::new(kind, "why").into_response(api);
        assert_eq!(response.status(), kind.status());
        let bytes = axum::body::to_bytes(response.into_body(), 1024).await;
        serde_json::from_slice(&bytes.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_has_the_shape_of_the_api() {
        assert_eq!(
            body(Kind::TooLarge, Api::Anthropic).await,
            json!({"type": "error", "error": {"type": "request_too_large", "message": "why"}})
        );
        assert_eq!(
            body(Kind::Unauthorized, Api::OpenAi).await,
            json!({"error": {"type": "invalid_request_error", "message": "why", "param": null, "code": "invalid_api_key"}})
        );
    }

    #[test]
    fn only_what_passes_says_when_to_try_again() {
        for (kind, says) in
            [(Kind::Unavailable, true), (Kind::TooMany, true), (Kind::Invalid, false), (Kind::BadUpstream, false)]
        {
            let response = Refusal::new(kind, "why").into_response(Api::Anthropic);
            assert_eq!(response.headers().contains_key("retry-after"), says);
        }
    }
}
