//! Responses.

use bytes::Bytes;
use http_body_util::{Either, Full, channel::Channel};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::error::ApiError;

/// The sending half of a stream.
pub type Sender = http_body_util::channel::Sender<Bytes>;

/// A body: whole, or a stream.
pub struct Body(Either<Full<Bytes>, Channel<Bytes>>);

impl Body {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Either::Left(Full::new(bytes.into())))
    }

    /// A body that is written bit by bit.
    pub fn stream() -> (Sender, Self) {
        let (sender, channel) = Channel::new(64);
        (sender, Self(Either::Right(channel)))
    }
}

/// A response before it is HTTP.
pub struct Reply {
    pub code: u16,
    pub content_type: &'static str,
    pub body: Body,
}

impl Reply {
    pub fn json(code: u16, value: &Value) -> Self {
        Self { code, content_type: "application/json", body: Body::whole(value.to_string()) }
    }

    pub fn text(code: u16, text: impl Into<String>) -> Self {
        Self { code, content_type: "text/plain; charset=utf-8", body: Body::whole(text.into()) }
    }

    /// As hyper sends it.
    pub fn into_http(self) -> Response<Either<Full<Bytes>, Channel<Bytes>>> {
        let mut response = Response::new(self.body.0);
        *response.status_mut() =
            hyper::StatusCode::from_u16(self.code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self::json(error.code, &error.status())
    }
}
