//! Pages for the users: to sign up and in, and the protected one.

use accounts::SignIn;
use accounts::password::MinChars;
use fleet::{Profile, WorkerId};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::layout::{Page, page, spoken, time};

/// `GET /`
pub fn home(profile: Profile, min_password: MinChars) -> Page {
    // Classic has no rule.
    let rule = (profile == Profile::Secure).then_some(min_password.get());
    page(
        "Vigia",
        &html! {
            div {
                h1 { "Welcome" }
                p.lead { "Sign in with your login, or choose one." }
            }
            @if profile == Profile::Classic {
                p.note.warn {
                    strong { "This stack runs the classic profile." }
                    " Passwords are stored as plain text, and any client can list them. Choose a password that you use nowhere else."
                }
            }
            div.cards {
                section.card aria-labelledby="signin" {
                    h2 #signin { "Sign in" }
                    form.fields method="post" action="/signin" {
                        (login_field("signin-login", None))
                        (password_field("signin-password", "password", "Password", "current-password", None))
                        button { "Sign in" }
                    }
                }
                section.card aria-labelledby="signup" {
                    h2 #signup { "Sign up" }
                    form.fields method="post" action="/signup" {
                        (login_field("signup-login", None))
                        (password_field("signup-password", "password", "Password", "new-password", rule))
                        button.quiet { "Create the account" }
                    }
                }
            }
        },
    )
}

/// After signing up in a browser.
pub fn signed_up(login: &str) -> Page {
    page(
        "Signed up",
        &html! {
            section.card.narrow {
                h1 { "Signed up" }
                p { "The account " strong { (login) } " is ready. Sign in with it:" }
                form.fields method="post" action="/signin" {
                    (login_field("signin-login", Some(login)))
                    (password_field("signin-password", "password", "Password", "current-password", None))
                    button { "Sign in" }
                }
            }
        },
    )
}

/// The content of the protected page.
pub struct Account<'a> {
    pub login: &'a str,
    /// The worker that answers.
    pub worker: &'a WorkerId,
    /// How old the session is.
    pub age: SignedDuration,
    /// When it ends at the latest.
    pub expires_in: SignedDuration,
    /// Oldest first.
    pub sign_ins: &'a [SignIn],
    pub created: Option<Timestamp>,
    /// False in classic, which knows signing out only.
    pub can_change: bool,
}

/// `GET /protected`
pub fn protected(account: &Account<'_>) -> Page {
    page(
        "Protected page",
        &html! {
            div {
                h1 { "Protected page" }
                p.lead { "Signed in as " strong { (account.login) } "." }
            }
            div.cards {
                (session(account))
                @if account.can_change { (sign_ins(account.sign_ins)) }
            }
            @if account.can_change {
                div.cards {
                    (change_password(account.login))
                    (delete(account.login))
                }
            }
        },
    )
}

fn session(account: &Account<'_>) -> Markup {
    html! {
        section.card aria-labelledby="session" {
            h2 #session { "This session" }
            dl.facts {
                dt { "Began" } dd { (spoken(account.age)) " ago" }
                dt { "Ends" } dd { "in " (spoken(account.expires_in)) " at the latest" }
                dt { "Answered by" } dd { code { (account.worker) } }
                @if let Some(created) = account.created {
                    dt { "Account since" } dd { (time(created)) " UTC" }
                }
            }
            p { small { "Any worker opens this session: load the page again and another one may answer." } }
            div.row {
                form method="post" action="/signout" { button { "Sign out" } }
                @if account.can_change {
                    form method="post" action="/signout/everywhere" { button.quiet { "Sign out everywhere" } }
                }
            }
        }
    }
}

fn sign_ins(sign_ins: &[SignIn]) -> Markup {
    html! {
        section.card aria-labelledby="signins" {
            h2 #signins { "Last sign-ins" }
            @if sign_ins.is_empty() {
                p.muted { "No sign-in is recorded." }
            } @else {
                div.scroll {
                    table {
                        thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "From" } } }
                        tbody {
                            @for sign_in in sign_ins.iter().rev() {
                                tr {
                                    td { (time(sign_in.at)) }
                                    td { @match &sign_in.from { Some(from) => code { (from) }, None => "unknown" } }
                                }
                            }
                        }
                    }
                }
                p { small { "Not you? Change the password, and sign out everywhere." } }
            }
        }
    }
}

fn change_password(login: &str) -> Markup {
    html! {
        section.card aria-labelledby="password" {
            h2 #password { "Change the password" }
            form.fields method="post" action="/password" {
                // For password managers, which must know whose password this is.
                input type="hidden" autocomplete="username" value=(login);
                (password_field("current", "current", "Current password", "current-password", None))
                (password_field("new", "new", "New password", "new-password", None))
                button.quiet { "Change the password" }
            }
        }
    }
}

fn delete(login: &str) -> Markup {
    html! {
        section.card.danger aria-labelledby="delete" {
            h2 #delete { "Delete the account" }
            p { "The account " strong { (login) } " and its sessions end at once. There is no way back." }
            form.fields method="post" action="/account/delete" {
                (password_field("delete-password", "password", "Password", "current-password", None))
                button.remove { "Delete the account" }
            }
        }
    }
}

fn login_field(id: &str, login: Option<&str>) -> Markup {
    html! {
        div.field {
            label for=(id) { "Login" }
            input #(id) name="login" autocomplete="username" autocapitalize="none" spellcheck="false" required value=[login];
        }
    }
}

/// With the least number of characters, when a new one must obey it. A browser counts in UTF-16
/// units, never fewer than our characters, so it refuses nothing that we would take.
fn password_field(id: &str, name: &str, label: &str, autocomplete: &str, min: Option<usize>) -> Markup {
    let hint = min.map(|_| format!("{id}-hint"));
    html! {
        div.field {
            label for=(id) { (label) }
            input #(id) name=(name) type="password" autocomplete=(autocomplete) required
                minlength=[min] aria-describedby=[hint.as_deref()];
            @if let (Some(min), Some(hint)) = (min, &hint) {
                small #(hint) { "At least " (min) " characters, and not a common one." }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(can_change: bool) -> String {
        let worker = "i-1".parse().expect("an id");
        let sign_ins = [("192.0.2.7", 0), ("<i>", 60)].map(|(from, second)| SignIn {
            at: Timestamp::constant(1_800_000_000 + second, 0),
            from: Some(from.to_owned()),
        });
        protected(&Account {
            login: "<script>alert(1)</script>",
            worker: &worker,
            age: SignedDuration::from_secs(3905),
            expires_in: SignedDuration::from_mins(655),
            sign_ins: &sign_ins,
            created: Some(Timestamp::constant(1_790_000_000, 0)),
            can_change,
        })
        .0
    }

    #[test]
    fn text_that_users_choose_is_escaped() {
        let page = shown(true);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;i&gt;") && !page.contains("<i>"), "{page}");
        assert!(!signed_up("\"><b>").0.contains("<b>"));
    }

    #[test]
    fn the_protected_page_shows_the_newest_sign_in_first() {
        let page = shown(true);
        for text in ["i-1", "1h 5m ago", "in 10h 55m", "2027-01-15 08:00:00", "2026-09-21 14:13:20"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        let at = |text| page.find(text).expect("shown");
        assert!(at("08:01:00") < at("08:00:00"), "{page}");
    }

    #[test]
    fn classic_offers_to_sign_out_and_nothing_else() {
        let actions = |page: &str| page.matches("action=\"").count();
        let classic = shown(false);
        assert!(classic.contains(r#"action="/signout""#) && actions(&classic) == 1, "{classic}");
        let secure = shown(true);
        for action in ["/signout", "/signout/everywhere", "/password", "/account/delete"] {
            assert!(secure.contains(&format!("action=\"{action}\"")), "{action}");
        }
    }

    #[test]
    fn the_page_names_the_password_rule_if_there_is_one() {
        let secure = home(Profile::Secure, MinChars::default()).0;
        assert!(secure.contains("minlength=\"8\"") && secure.contains("At least 8 characters"), "{secure}");
        let classic = home(Profile::Classic, MinChars::default()).0;
        assert!(!classic.contains("minlength") && classic.contains("classic profile"), "{classic}");
    }
}
