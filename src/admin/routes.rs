//! Which path answers what.

use super::http::{Request, Response};
use super::{Serves, Sources};
use crate::metrics::CONTENT_TYPE;

/// Answers a request with what this listener serves.
pub fn respond(request: &Request, serves: Serves, sources: &Sources) -> Response {
    let answer: fn(&Sources) -> Response = match request.path.as_str() {
        "/metrics" if serves.metrics => metrics,
        "/health" if serves.health => health,
        "/ready" if serves.ready => ready,
        _ => return Response::text("404 Not Found", "not found\n"),
    };
    match request.method.as_str() {
        "GET" | "HEAD" => answer(sources),
        _ => Response::text("405 Method Not Allowed", "only GET and HEAD\n"),
    }
}

fn metrics(sources: &Sources) -> Response {
    Response::ok(CONTENT_TYPE, sources.registry.scrape())
}

/// Alive is all it says, as in CoreDNS, through a lame-duck wait too.
fn health(_: &Sources) -> Response {
    Response::text("200 OK", "OK")
}

fn ready(sources: &Sources) -> Response {
    match sources.ready.pending() {
        pending if pending.is_empty() => Response::text("200 OK", "OK"),
        pending => Response::text("503 Service Unavailable", pending.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::ready::Ready;

    const EVERYTHING: Serves = Serves { metrics: true, health: true, ready: true };

    fn ask(method: &str, path: &str, serves: Serves, ready: &Ready) -> (String, String) {
        let sources = Sources { registry: Registry::new(), ready: ready.clone() };
        let request = Request { method: method.into(), path: path.into(), keep_alive: true };
        let response = respond(&request, serves, &sources);
        (response.status[..3].to_owned(), response.body.into_owned())
    }

    #[test]
    fn paths_and_methods() {
        let ready = Ready::new();
        for (method, path, status) in [
            ("GET", "/metrics", "200"),
            ("HEAD", "/metrics", "200"),
            ("GET", "/health", "200"),
            ("POST", "/health", "405"),
            ("get", "/health", "405"),
            ("GET", "/ready", "200"),
            ("GET", "/", "404"),
            ("GET", "/metrics/", "404"),
            ("POST", "/nothing", "404"),
        ] {
            assert_eq!(ask(method, path, EVERYTHING, &ready).0, status, "{method} {path}");
        }
        for path in ["/metrics", "/health", "/ready"] {
            assert_eq!(ask("GET", path, Serves::default(), &ready).0, "404");
        }
    }

    #[test]
    fn ready_names_what_it_waits_for() {
        let ready = Ready::new();
        let link = ready.latch("link");
        let _upstream = ready.latch("upstream");
        let waiting = ("503".to_owned(), "link,upstream".to_owned());
        assert_eq!(ask("GET", "/ready", EVERYTHING, &ready), waiting);
        drop(link);
        assert_eq!(ask("GET", "/ready", EVERYTHING, &ready).1, "upstream");
        assert_eq!(ask("GET", "/health", EVERYTHING, &ready).1, "OK");
    }
}
