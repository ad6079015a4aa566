//! The pages for people: plain HTML that works without JavaScript. maud escapes what is put in.
//!
//! The forms use the POST routes, so no password is in an address, a history or a proxy's log.

use axum::http::StatusCode;
use axum::response::Html;
use fleet::WorkerId;
use jiff::{SignedDuration, Unit};
use maud::{DOCTYPE, Markup, html};

const STYLE: &str = "body{font:1.1em/1.5 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em}\
    form{display:grid;gap:.5em;max-width:20em;margin:1em 0 2em}input,button{font:inherit;padding:.4em}";

pub type Page = Html<String>;

/// `GET /`
pub fn home() -> Page {
    page(
        "Vigia",
        &html! {
            h1 { "Vigia" }
            h2 { "Sign in" }
            (credentials_form("/signin", "Sign in", "current-password"))
            h2 { "Sign up" }
            (credentials_form("/signup", "Sign up", "new-password"))
        },
    )
}

/// `GET /protected`
pub fn protected(login: &str, worker: &WorkerId, age: SignedDuration) -> Page {
    page(
        "Protected page",
        &html! {
            h1 { "Protected page" }
            p { "Signed in as " strong { (login) } "." }
            p { "Answered by worker " code { (worker) } "; the session is " (spoken(age)) " old." }
            form method="post" action="/signout" { button { "Sign out" } }
        },
    )
}

/// After signing up in a browser.
pub fn signed_up(login: &str) -> Page {
    page(
        "Signed up",
        &html! {
            h1 { "Signed up" }
            p { "The account " strong { (login) } " is ready." }
            p { a href="/" { "Sign in" } }
        },
    )
}

pub fn error(status: StatusCode, message: &str) -> Page {
    page(
        status.canonical_reason().unwrap_or("Error"),
        &html! {
            h1 { (status.as_u16()) " " (status.canonical_reason().unwrap_or("Error")) }
            p { (message) }
            p { a href="/" { "Back to the start" } }
        },
    )
}

fn credentials_form(action: &str, verb: &str, autocomplete: &str) -> Markup {
    html! {
        form method="post" action=(action) {
            label { "Login " input name="login" autocomplete="username" required autocapitalize="none" spellcheck="false"; }
            label { "Password " input name="password" type="password" autocomplete=(autocomplete) required; }
            button { (verb) }
        }
    }
}

fn page(title: &str, body: &Markup) -> Page {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (STYLE) }
            }
            body { (body) }
        }
    };
    Html(markup.into_string())
}

/// `1h 5m`, `42s`.
fn spoken(age: SignedDuration) -> String {
    let whole = age.round(Unit::Second).unwrap_or(age);
    format!("{whole:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_choose_is_escaped() {
        let worker = "i-1".parse().expect("an id");
        let page = protected("<script>alert(1)</script>", &worker, SignedDuration::from_secs(3905)).0;
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
        assert!(page.contains("1h 5m 5s"), "{page}");
        assert!(!signed_up("<b>").0.contains("<b>"));
        assert!(!error(StatusCode::BAD_REQUEST, "<b>").0.contains("<b>"));
    }
}
