//! Refusals in the shape of the API that was asked, so that every SDK reports them as errors.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::upstream::Api;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// Kind of error, as the API names it.
    pub kind: &'static str,
    /// What was wrong and what to do.
    pub message: String,
}

impl Refusal {
    /// The request can not be understood or is not allowed in this form.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "invalid_request_error", message: message.into() }
    }

    /// The bearer is missing or not good.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, kind: "authentication_error", message: message.into() }
    }

    /// The bearer is good and does not allow this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, kind: "permission_error", message: message.into() }
    }

    /// The proxy can not decide or reach what it needs: fail closed, worth a retry.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, kind: "api_error", message: message.into() }
    }

    /// The refusal as an answer of `api`.
    pub fn into_response(self, api: Api) -> Response {
        let body = match api {
            Api::Anthropic => json!({ "type": "error", "error": { "type": self.kind, "message": self.message } }),
            Api::OpenAi => json!({ "error": { "type": self.kind, "message": self.message, "param": null, "code": null } }),
        };
        (self.status, Json(body)).into_response()
    }
}
