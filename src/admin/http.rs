//! As much of HTTP/1.1 (RFC 9112) as a probe, a scraper or `curl` needs: heads in, whole bodies out.

use std::borrow::Cow;

/// Longest request head, octets.
pub const MAX_HEAD: usize = 8 * 1024;

/// A request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As sent; methods are case-sensitive.
    pub method: String,
    /// Without query.
    pub path: String,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
}

/// What the octets received so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// No whole head yet.
    Partial,
    /// A head, and its length.
    Request(Request, usize),
    /// Answer this and close.
    Refused(Response),
}

/// An answer with its whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Code and reason phrase.
    pub status: &'static str,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Left out in the answer to HEAD.
    pub body: Cow<'static, str>,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    /// 200, with a media type.
    pub fn ok(content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Response {
        Response { status: "200 OK", content_type, body: body.into() }
    }

    /// Plain text under any status.
    pub fn text(status: &'static str, body: impl Into<Cow<'static, str>>) -> Response {
        Response { status, content_type: TEXT, body: body.into() }
    }

    /// The octets to send.
    pub fn encode(&self, head_only: bool, keep_alive: bool) -> Vec<u8> {
        let mut out = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
            self.status,
            self.content_type,
            self.body.len(),
        );
        if self.status.starts_with("405") {
            out.push_str("Allow: GET, HEAD\r\n");
        }
        if !keep_alive {
            out.push_str("Connection: close\r\n");
        }
        out.push_str("\r\n");
        if !head_only {
            out.push_str(&self.body);
        }
        out.into_bytes()
    }
}

/// Looks for a request head at the start of what was received.
pub fn parse(received: &[u8]) -> Parsed {
    let within = &received[..received.len().min(MAX_HEAD)];
    let Some(end) = within.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if received.len() < MAX_HEAD {
            Parsed::Partial
        } else {
            Parsed::Refused(Response::text(
                "431 Request Header Fields Too Large",
                "the request head is longer than 8 KiB\n",
            ))
        };
    };
    match std::str::from_utf8(&received[..end]).ok().and_then(head) {
        Some(request) => Parsed::Request(request, end + 4),
        None => Parsed::Refused(Response::text("400 Bad Request", "not an HTTP/1.1 request\n")),
    }
}

fn head(text: &str) -> Option<Request> {
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let persistent = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    if words.next().is_some() || method.is_empty() || !target.starts_with('/') {
        return None;
    }
    let mut keep_alive = persistent;
    let mut hosts = 0;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("connection") {
            let has = |option| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(option));
            keep_alive = !has("close") && (persistent || has("keep-alive"));
        } else if name.eq_ignore_ascii_case("host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            || (name.eq_ignore_ascii_case("content-length") && value != "0")
        {
            // No path takes a body, and reading past one is the classic way to be smuggled through.
            return None;
        }
    }
    // RFC 9112 §3.2: exactly one Host in HTTP/1.1.
    if persistent && hosts != 1 {
        return None;
    }
    let path = target.split('?').next().unwrap_or(target);
    Some(Request { method: method.to_owned(), path: path.to_owned(), keep_alive })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request, length) => {
                assert_eq!(length, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn status(text: &[u8]) -> &'static str {
        match parse(text) {
            Parsed::Refused(response) => response.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn heads_of_probes_and_scrapers() {
        let kubelet = request(
            "GET /health?x=1 HTTP/1.1\r\nHost: 169.254.20.10:8080\r\nUser-Agent: kube-probe/1.33\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n",
        );
        assert_eq!((kubelet.method.as_str(), kubelet.path.as_str()), ("GET", "/health"));
        assert!(!kubelet.keep_alive);
        assert!(request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").keep_alive);
        assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn a_head_ends_at_the_empty_line() {
        let two = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n";
        assert!(matches!(parse(two), Parsed::Request(_, 28)));
        assert_eq!(parse(&two[28..]), Parsed::Partial);
        assert_eq!(parse(b""), Parsed::Partial);
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for text in [
            "\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(status(text.as_bytes()), "400 Bad Request", "{text:?}");
        }
        assert_eq!(status(b"\xff\xff\r\n\r\n"), "400 Bad Request");
        assert!(status(&[b'a'; MAX_HEAD]).starts_with("431"));
    }

    #[test]
    fn a_response_tells_its_length_even_without_its_body() {
        let response = Response::text("405 Method Not Allowed", "no\n");
        assert_eq!(
            response.encode(true, false),
            b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n\
              Content-Length: 3\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n"
        );
        assert!(response.encode(false, true).ends_with(b"HEAD\r\n\r\nno\n"));
    }
}
