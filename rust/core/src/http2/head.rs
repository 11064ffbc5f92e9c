//! The head of a request: parsed once, and sent with many.

use http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT,
};
use http::{Method, Request, Uri, Version};
use thiserror::Error;

/// A header cannot be sent, or the address cannot.
///
/// It does not say which, since a header may be a secret.
#[derive(Debug, Error)]
#[error("a header, or the server's name, cannot be sent over HTTP/2")]
pub struct BadHead;

/// Method, path and headers of requests.
#[derive(Clone)]
pub struct Head(Request<()>);

impl Head {
    /// Makes the head of a gRPC method.
    ///
    /// `timeout` is gRPC's deadline in its own form, such as `60S`; `headers` are more headers, their names in lower case.
    pub fn new<'a>(
        tls: bool,
        authority: &str,
        path: &str,
        timeout: &str,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, BadHead> {
        let uri = Uri::builder()
            .scheme(if tls { "https" } else { "http" })
            .authority(authority)
            .path_and_query(path)
            .build()
            .map_err(|_| BadHead)?;
        let mut map = HeaderMap::with_capacity(16);
        map.insert(TE, HeaderValue::from_static("trailers"));
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        map.insert(USER_AGENT, HeaderValue::from_static("casdk"));
        map.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        map.insert("grpc-timeout", value(timeout)?);
        for (name, text) in headers {
            let name = self::name(name)?;
            let mut value = value(text)?;
            // Never kept in the tables of HPACK, neither here nor by a proxy.
            value.set_sensitive(name == AUTHORIZATION);
            map.append(name, value);
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = map;
        Ok(Self(request))
    }

    /// Returns it with headers that belong to one request alone, which are not kept in the tables of HPACK.
    pub fn with<'a>(
        &self,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, BadHead> {
        let mut request = self.0.clone();
        for (name, text) in headers {
            let mut value = value(text)?;
            value.set_sensitive(true);
            request.headers_mut().append(self::name(name)?, value);
        }
        Ok(Self(request))
    }

    pub(super) fn request(&self) -> Request<()> {
        self.0.clone()
    }
}

fn name(text: &str) -> Result<HeaderName, BadHead> {
    HeaderName::from_lowercase(text.as_bytes()).map_err(|_| BadHead)
}

fn value(text: &str) -> Result<HeaderValue, BadHead> {
    HeaderValue::from_str(text).map_err(|_| BadHead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(authority: &str, name: &str, value: &str) -> Result<Head, BadHead> {
        Head::new(true, authority, "/a/b", "1S", [(name, value)])
    }

    #[test]
    fn what_a_request_begins_with() {
        let head = head("[::1]:443", "authorization", "secret").expect("a head");
        let traced = head.with([("traceparent", "00")]).expect("a head");
        let request = traced.request();
        assert_eq!(request.uri(), "https://[::1]:443/a/b");
        assert_eq!(request.headers()["grpc-timeout"], "1S");
        assert_eq!(request.headers()["traceparent"], "00");
        assert!(request.headers()["authorization"].is_sensitive());
        assert!(!head.request().headers().contains_key("traceparent"));
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn what_cannot_be_sent_is_not_shown() {
        for (authority, name, value) in [
            ("a b", "x", "y"),
            ("a", "X", "y"),
            ("a", "x", "secret\n"),
            ("a", "x y", "secret"),
        ] {
            let error = head(authority, name, value).err().expect("an error");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
