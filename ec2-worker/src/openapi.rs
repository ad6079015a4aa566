//! `GET /openapi.json`: the contract. Its paths are the handlers' annotations, which `routes` collects; here is the rest.
//!
//! The dashboard's pages and forms are not in it: they are for browsers and may change with any release.

use axum::body::Bytes;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Deprecated, OpenApi as Document, RefOr, Required};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Vigia",
        description = "A login service on a fleet of workers that heals and scales itself.\n\n\
            Refusals are `{\"error\": \"<code>\", \"message\": \"<what to do>\"}`; a browser that asks for `text/html` \
            gets a page. Every answer carries `X-Request-Id`. A 503 carries `Retry-After`, and so does a 429.\n\n\
            The forms of sign-up and sign-in that have the password in the path are those of the original \
            service. They are deprecated: addresses end up in histories and logs."
    ),
    tags(
        (name = "accounts", description = "Signing up and in, and what the owner of a session may do."),
        (name = "fleet", description = "How many workers there are, and how many there should be."),
    )
)]
struct Api;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut Document) {
        let session = ApiKeyValue::with_description(
            "vigia_session",
            "Set by a sign-in. Over TLS its name is `__Host-vigia_session`.",
        );
        let token =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The admin token.")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
        components.add_security_scheme("admin", SecurityScheme::Http(token));
    }
}

struct PasswordsInPaths;

impl Modify for PasswordsInPaths {
    fn modify(&self, document: &mut Document) {
        for (path, item) in &mut document.paths.paths {
            if path.contains("{password}") {
                for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                    operation.deprecated = Some(Deprecated::True);
                }
            }
        }
    }
}

/// The body is optional, because a user who has just signed in sends none.
struct Proof;

impl Modify for Proof {
    fn modify(&self, document: &mut Document) {
        let operation = document.paths.paths.get_mut("/account").and_then(|item| item.delete.as_mut());
        if let Some(RefOr::T(body)) = operation.and_then(|operation| operation.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
    }
}

/// Returns the document with these paths. It is serialized once, because it is large and any client may ask for it.
pub fn document(paths: Document) -> Bytes {
    let mut document = Api::openapi();
    document.merge(paths);
    let modifiers: [&dyn Modify; 3] = [&Schemes, &PasswordsInPaths, &Proof];
    for modifier in modifiers {
        modifier.modify(&mut document);
    }
    serde_json::to_vec(&document).expect("a document is plain data").into()
}
