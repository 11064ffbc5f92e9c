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

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The largest number of a deadline in gRPC, which has eight digits, and a letter after them for the unit.
const LARGEST_NUMBER: f64 = 99_999_999.0;

/// Method, path and headers of requests.
#[derive(Clone)]
pub struct Head(Request<()>);

impl Head {
    /// Makes the head of a gRPC method.
    ///
    /// `timeout` is the deadline in seconds; `headers` are more headers, their names in lower case.
    pub fn new<'a>(
        tls: bool,
        authority: &str,
        path: &str,
        timeout: f64,
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
        map.insert(TIMEOUT, deadline(timeout));
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

    /// Returns the head of one request, with a deadline of its own, in seconds, if it has one.
    ///
    /// Such a deadline is hardly ever the same twice, so it is not kept in the tables of HPACK.
    pub(super) fn request(&self, timeout: Option<f64>) -> Request<()> {
        let mut request = self.0.clone();
        if let Some(seconds) = timeout {
            let mut value = deadline(seconds);
            value.set_sensitive(true);
            request.headers_mut().insert(TIMEOUT, value);
        }
        request
    }
}

/// Returns a deadline in gRPC's form: milliseconds, or seconds where there are too many of these.
fn deadline(seconds: f64) -> HeaderValue {
    let milliseconds = (seconds * 1000.0).ceil().max(1.0);
    let text = if milliseconds <= LARGEST_NUMBER {
        format!("{milliseconds}m")
    } else {
        format!("{}S", seconds.ceil().min(LARGEST_NUMBER))
    };
    HeaderValue::try_from(text).expect("digits and a letter")
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
        Head::new(true, authority, "/a/b", 1.0, [(name, value)])
    }

    #[test]
    fn what_a_request_begins_with() {
        let head = head("[::1]:443", "authorization", "secret").expect("a head");
        let traced = head.with([("traceparent", "00")]).expect("a head");
        let request = traced.request(None);
        assert_eq!(request.uri(), "https://[::1]:443/a/b");
        assert_eq!(request.headers()["grpc-timeout"], "1000m");
        assert_eq!(request.headers()["traceparent"], "00");
        assert!(request.headers()["authorization"].is_sensitive());
        let hurried = head.request(Some(0.0195));
        assert!(!hurried.headers().contains_key("traceparent"));
        let timeouts: Vec<_> = hurried.headers().get_all("grpc-timeout").iter().collect();
        assert_eq!(timeouts, ["20m"]);
        assert!(timeouts[0].is_sensitive());
        assert!(!format!("{request:?}").contains("secret"));
    }

    #[test]
    fn deadlines_in_eight_digits() {
        for (seconds, text) in [
            (-1.0, "1m"),
            (0.0, "1m"),
            (0.0001, "1m"),
            (60.0, "60000m"),
            (99_999.999, "99999999m"),
            (100_000.0, "100000S"),
            (1e300, "99999999S"),
            (f64::INFINITY, "99999999S"),
        ] {
            assert_eq!(deadline(seconds), text);
        }
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
