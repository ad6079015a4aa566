//! The frame of every page, and how times and texts are written on it.

use axum::response::Html;
use jiff::{SignedDuration, Timestamp, Unit};
use maud::{DOCTYPE, Markup, html};

use super::assets;

pub type Page = Html<String>;

pub(super) fn page(title: &str, content: &Markup) -> Page {
    framed(title, &html! {}, &html! {}, content)
}

/// A page with more in its head and in its bar.
pub(super) fn framed(title: &str, head: &Markup, bar: &Markup, content: &Markup) -> Page {
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
pub(super) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (at.strftime("%Y-%m-%d %H:%M:%S")) } }
}

/// `1h 5m`, `42s`; of a negative one, `0s`.
pub(super) fn spoken(age: SignedDuration) -> String {
    let unit = if age.as_hours() > 0 { Unit::Minute } else { Unit::Second };
    let whole = age.max(SignedDuration::ZERO).round(unit).unwrap_or(age);
    format!("{whole:#}")
}

/// Returns the text with the parts between backticks as code.
pub(super) fn with_code(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

pub(super) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
