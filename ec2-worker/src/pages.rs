//! The pages for people: plain HTML that works without JavaScript. maud escapes what is put in.
//!
//! The forms use the POST routes, so no password is in an address, a history or a proxy's log.
//! No page carries a style or a script in itself, so the content security policy allows none.

mod account;
mod admin;
pub mod assets;

use axum::http::StatusCode;
use axum::response::Html;
use jiff::{SignedDuration, Timestamp, Unit};
use maud::{DOCTYPE, Markup, html};

pub use account::{Account, home, protected, signed_up};
pub use admin::{dashboard, token_form};

pub type Page = Html<String>;

/// That something is done, and where to go from here.
pub fn notice(title: &str, text: &str, link_text: &str, href: &str) -> Page {
    page(
        title,
        &html! {
            section.card.narrow {
                h1 { (title) }
                p { (text) }
                p { a.button href=(href) { (link_text) } }
            }
        },
    )
}

/// Whom an address is for, and so where a refusal leads back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Users,
    Operator,
}

impl Area {
    pub fn of(path: &str) -> Self {
        if path == "/admin" || path.starts_with("/admin/") { Self::Operator } else { Self::Users }
    }
}

/// A refusal.
pub fn error(status: StatusCode, message: &str, area: Area) -> Page {
    let (back, href) = match area {
        Area::Operator => ("Back to the dashboard", "/admin"),
        Area::Users => ("Back to the start", "/"),
    };
    let reason = status.canonical_reason().unwrap_or("Error");
    page(
        reason,
        &html! {
            section.card.narrow {
                p.muted { "Error " (status.as_u16()) }
                h1 { (reason) }
                p { (with_code(&capitalised(message))) "." }
                p { a.button.quiet href=(href) { (back) } }
            }
        },
    )
}

fn page(title: &str, content: &Markup) -> Page {
    framed(title, &html! {}, &html! {}, content)
}

/// A page with more in its head and in its bar.
fn framed(title: &str, head: &Markup, bar: &Markup, content: &Markup) -> Page {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { @if title == "Vigia" { "Vigia" } @else { (title) " – Vigia" } }
                link rel="icon" href=(assets::icon()) type="image/svg+xml";
                link rel="stylesheet" href=(assets::style());
                (head)
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.bar {
                    a.brand href="/" { img src=(assets::icon()) alt="" width="30" height="30"; "Vigia" }
                    (bar)
                }
                main #content tabindex="-1" { (content) }
                footer.foot {
                    span { "Vigia " (env!("CARGO_PKG_VERSION")) }
                    a href="/admin" { "For the operator" }
                }
            }
        }
    };
    Html(markup.into_string())
}

/// `2026-11-25 09:05:07` and when it is exactly, for programs.
fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S")) } }
}

/// `1h 5m`, `42s`; of a negative one, `0s`.
fn spoken(age: SignedDuration) -> String {
    let unit = if age.as_hours() > 0 { Unit::Minute } else { Unit::Second };
    let whole = age.max(SignedDuration::ZERO).round(unit).unwrap_or(age);
    format!("{whole:#}")
}

/// What stands between backticks, as in our messages, is code.
fn with_code(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        for page in [
            error(StatusCode::BAD_REQUEST, "<b>", Area::Users).0,
            notice("<b>", "<b>", "<b>", "\"><b>").0,
            signed_up("<b>").0,
        ] {
            assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "{page}");
        }
    }

    #[test]
    fn no_page_needs_more_than_the_policy_allows() {
        for page in [error(StatusCode::BAD_REQUEST, "x", Area::Users).0, notice("x", "x", "x", "/").0] {
            assert!(
                !page.contains("<style") && !page.contains(" style=") && !page.contains("<script"),
                "{page}"
            );
            assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
        }
    }

    #[test]
    fn ages_are_said_in_two_units() {
        let spoken = |seconds| spoken(SignedDuration::from_secs(seconds));
        assert_eq!([spoken(-5), spoken(42), spoken(125), spoken(3905)], ["0s", "42s", "2m 5s", "1h 5m"]);
    }

    #[test]
    fn an_error_leads_back_to_where_it_came_from() {
        for (path, href) in
            [("/admin/amount", "/admin"), ("/admin", "/admin"), ("/signup", "/"), ("/adminx", "/")]
        {
            let page = error(StatusCode::CONFLICT, "x", Area::of(path)).0;
            assert!(page.contains(&format!(r#"href="{href}">Back"#)), "{path}: {page}");
        }
    }
}
