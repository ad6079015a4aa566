//! The pages for people: plain HTML that works without JavaScript. maud escapes every inserted text.
//!
//! The forms use the POST routes, so no password is in an address, a history or a proxy's log.
//! No page carries a style or a script in itself, so the content security policy allows none.

mod account;
mod admin;
pub mod assets;
mod layout;

use axum::http::StatusCode;
use maud::html;

pub use account::{Account, home, protected, signed_up};
pub use admin::{dashboard, token_form};

use layout::{capitalised, page, with_code};

pub use layout::Page;

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

/// The part of the service that an address belongs to, and to which a refusal leads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Users,
    Operator,
}

impl Area {
    pub fn of_path(path: &str) -> Self {
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::layout::spoken;
    use super::*;

    #[test]
    fn text_from_outside_is_escaped() {
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
    fn ages_are_written_in_two_units() {
        let spoken = |seconds| spoken(SignedDuration::from_secs(seconds));
        assert_eq!([spoken(-5), spoken(42), spoken(125), spoken(3905)], ["0s", "42s", "2m 5s", "1h 5m"]);
    }

    #[test]
    fn an_error_leads_back_to_where_it_came_from() {
        for (path, href) in
            [("/admin/amount", "/admin"), ("/admin", "/admin"), ("/signup", "/"), ("/adminx", "/")]
        {
            let page = error(StatusCode::CONFLICT, "x", Area::of_path(path)).0;
            assert!(page.contains(&format!(r#"href="{href}">Back"#)), "{path}: {page}");
        }
    }
}
