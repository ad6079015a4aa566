//! One line per request, off unless asked for.
//!
//! Passwords travel in two routes' paths, and anything may be in a query. So a line names the route,
//! never the path; a path without a route is logged as `other`.

use std::time::Duration;

use http1::request::Request;

/// A route of the service, as DESIGN and the OpenAPI document write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route(&'static str);

impl Route {
    pub(crate) fn of_path(path: &[u8]) -> Self {
        let path = std::str::from_utf8(path).unwrap_or_default();
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let first = segments.next().unwrap_or_default();
        let rest = segments.count();
        Self(match (first, rest) {
            ("", 0) => "/",
            ("healthcheck", 0) => "/healthcheck",
            ("checkamount", 0) => "/checkamount",
            ("setamount", 0) => "/setamount",
            ("setamount", 1) => "/setamount/{n}",
            ("list", 0) => "/list",
            ("signup", 0) => "/signup",
            ("signup", _) => "/signup/{login}/{password}",
            ("signin", 0) => "/signin",
            ("signin", _) => "/signin/{login}/{password}",
            ("signout", 0) => "/signout",
            ("password", 0) => "/password",
            ("account", 0) => "/account",
            ("protected", 0) => "/protected",
            ("openapi.json", 0) => "/openapi.json",
            ("admin", 0) => "/admin",
            ("admin", _) => "/admin/…",
            _ => "other",
        })
    }
}

/// `request` is `None` when its head could not be read.
pub(crate) fn write(request: Option<&Request>, route: Option<Route>, status: u16, took: Duration) {
    tracing::info!(
        target: "access",
        request_id = request.and_then(|request| std::str::from_utf8(request.id.as_bytes()).ok()),
        method = request.map(|request| request.method.as_str()),
        route = route.map(|route| route.0),
        status,
        took_ms = took.as_secs_f64() * 1000.0,
        "a request was answered"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_route_and_never_the_path() {
        for (path, route) in [
            ("/", "/"),
            ("/signin/ana/secret", "/signin/{login}/{password}"),
            ("/signin/secret", "/signin/{login}/{password}"),
            ("/signup/ana/se/cret", "/signup/{login}/{password}"),
            ("/setamount/5", "/setamount/{n}"),
            ("/admin/login", "/admin/…"),
            ("/secret", "other"),
            ("//signin/ana/secret", "other"),
            ("*", "other"),
        ] {
            assert_eq!(Route::of_path(path.as_bytes()), Route(route), "{path}");
        }
    }
}
