//! Pages for the operator. `assets/dashboard.js` updates the elements with `id="live-…"`; without it the
//! page is complete and shows the moment it was loaded.

use fleet::DesiredCount;
use jiff::Timestamp;
use maud::{Markup, html};

use super::assets;
use super::layout::{Page, framed, page, spoken, time};
use crate::admin::Access;
use crate::dashboard::directory::Directory;
use crate::dashboard::{LoadBalancer, Picture, Row, State, Tone};

/// Returns the page where the operator gives the token, with the error of the last try.
pub fn token_form(wrong: Option<&str>) -> Page {
    page(
        "Dashboard",
        &html! {
            section.card.narrow {
                h1 { "Dashboard" }
                @if let Some(wrong) = wrong {
                    p.note.bad role="alert" id="wrong" { (wrong) }
                }
                form.fields method="post" action="/admin/signin" {
                    div.field {
                        label for="token" { "Admin token" }
                        input #token name="token" type="password" autocomplete="off" required
                            aria-describedby=[wrong.map(|_| "wrong")] aria-invalid=[wrong.map(|_| "true")];
                        small { "The deployment showed it; " code { "make token" } " shows it again." }
                    }
                    button { "Open the dashboard" }
                }
            }
        },
    )
}

/// `GET /admin`
pub fn dashboard(picture: &Picture, directory: &Directory, access: &Access) -> Page {
    let script = html! { script src=(assets::dashboard_script()) defer {} };
    let sign_out = html! {
        @if let Access::Session(_) = access {
            form method="post" action="/admin/signout" { button.quiet.small { "Sign out" } }
        }
    };
    framed(
        "Dashboard",
        &script,
        &sign_out,
        &html! {
            div {
                h1 { "Dashboard" }
                p.lead #live-status role="status" { "As of " (time(picture.at)) " UTC." }
            }
            div.notes #live-problems { (problems(&picture.fleet.problems)) }
            (figures(picture))
            div.beside {
                (chart())
                div.stack {
                    (amount(picture))
                    (held(&picture.fleet.held))
                }
            }
            (workers(picture))
            (events(picture))
            (users(directory))
        },
    )
}

fn problems(problems: &[String]) -> Markup {
    html! {
        @for problem in problems { p.note.warn { (problem) } }
    }
}

fn figures(picture: &Picture) -> Markup {
    let (desired, healthy) = (picture.fleet.desired.map(DesiredCount::get), picture.fleet.healthy);
    let is_complete = desired.is_some_and(|desired| healthy == usize::try_from(desired).ok());
    let rates = &picture.rates;
    html! {
        div.figures {
            (figure("desired", "Desired", &shown(desired), None))
            (figure("healthy", "Healthy", &shown(healthy), Some(if is_complete { Tone::Ok } else { Tone::Warn })))
            (figure("requests", "Requests / s", &format!("{:.1}", rates.requests_per_second), None))
            (figure("signins", "Sign-ins / min", &rates.sign_ins_per_minute.to_string(), None))
            (figure("refused", "Refused / min", &rates.refused_per_minute.to_string(), None))
        }
        p.muted #live-rates {
            small { "Requests and sign-ins are those of the worker that answered, " code { (picture.worker) } ", within the last minute." }
        }
    }
}

fn figure(id: &str, name: &str, value: &str, tone: Option<Tone>) -> Markup {
    html! {
        div.figure.(tone.map_or("", class)) id={ "live-" (id) } {
            span.name { (name) }
            span.value { (value) }
        }
    }
}

fn shown<T: ToString>(number: Option<T>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

fn chart() -> Markup {
    html! {
        section.card #live-chart aria-labelledby="chart" {
            header {
                h2 #chart { "Desired and healthy" }
                p.legend { span.healthy { "healthy" } span.desired { "desired" } }
            }
            p.muted { "The chart needs JavaScript; the rest of this page works without it." }
            svg.chart hidden role="img" aria-label="The number of workers since this page was opened" {}
        }
    }
}

fn workers(picture: &Picture) -> Markup {
    let fleet = &picture.fleet;
    html! {
        section.card aria-labelledby="workers" {
            header {
                h2 #workers { "Workers" }
                p.muted #live-checked { (last_check(fleet.last_check, picture.at)) }
            }
            p #live-balancer { @if let Some(holder) = &fleet.balancer { (balancer(holder, picture.at)) } }
            div.scroll tabindex="0" role="region" aria-labelledby="workers" {
                table {
                    thead {
                        tr {
                            @for name in ["Worker", "State", "For", "Gets requests", "Zone", "Slot", "Release"] {
                                th scope="col" { (name) }
                            }
                        }
                    }
                    tbody #live-workers {
                        @if fleet.workers.is_empty() { tr { td colspan="7" { "No workers are known." } } }
                        @for row in &fleet.workers { (worker(row, picture.at)) }
                    }
                }
            }
        }
    }
}

fn worker(row: &Row, now: Timestamp) -> Markup {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
    html! {
        tr {
            td { @match &row.id { Some(id) => code { (id) }, None => span.muted { "no id yet" } } }
            td {
                (state(row.state))
                @if let Some(why) = explained(row) { small { (why) } }
            }
            td { (spoken(now.duration_since(row.since))) }
            td { (if row.is_registered { "yes" } else { "no" }) }
            td { (text(&row.zone)) }
            td { (row.slot.map_or_else(|| "–".to_owned(), |slot| slot.to_string())) }
            td {
                @match &row.release { Some(release) => code { (release) }, None => "–" }
                @if let Some(version) = &row.version { small { "version " (version) } }
            }
        }
    }
}

/// Why a row is as it is; being healthy needs no reason.
fn explained(row: &Row) -> Option<&str> {
    row.reason.as_deref().or((row.state.tone != Tone::Ok).then_some(row.state.meaning))
}

fn state(state: State) -> Markup {
    html! { span.state.(class(state.tone)) { (state.name) } }
}

const fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Ok => "ok",
        Tone::Busy => "busy",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
    }
}

fn last_check(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(
        || "Never checked".to_owned(),
        |at| format!("Last check {} ago", spoken(now.duration_since(at))),
    )
}

fn balancer(holder: &LoadBalancer, now: Timestamp) -> Markup {
    html! {
        "Load balancer " code { (holder.id) } " " (state(holder.state))
        " for " (spoken(now.duration_since(holder.since)))
    }
}

fn held(held: &[String]) -> Markup {
    html! {
        section.card aria-labelledby="held" {
            h2 #held { "Held back" }
            ul.list #live-held {
                @if held.is_empty() { li.muted { "Nothing." } }
                @for reason in held { li { (reason) } }
            }
        }
    }
}

fn amount(picture: &Picture) -> Markup {
    html! {
        section.card aria-labelledby="amount-title" {
            h2 #amount-title { "Set the amount" }
            form.row method="post" action="/admin/amount" {
                div.field {
                    label for="amount" { "Workers" }
                    input #amount name="amount" type="number" inputmode="numeric" min="1" max=(DesiredCount::MAX)
                        required value=[picture.fleet.desired.map(DesiredCount::get)] aria-describedby="amount-hint";
                }
                button { "Set" }
            }
            small #amount-hint { "From 1 to " (DesiredCount::MAX) ". The fleet follows within half a minute." }
        }
    }
}

fn events(picture: &Picture) -> Markup {
    html! {
        section.card aria-labelledby="events" {
            header {
                h2 #events { "What the reconciler did" }
                p.muted { "newest first, UTC" }
            }
            div.events tabindex="0" role="region" aria-labelledby="events" {
                ol.list #live-events {
                    @if picture.fleet.events.is_empty() { li.muted { "Nothing yet." } }
                    @for event in &picture.fleet.events {
                        li {
                            time datetime=(event.at) title=(event.at) { (event.at.strftime("%H:%M:%S")) }
                            span { (event.text) }
                        }
                    }
                }
            }
        }
    }
}

fn users(directory: &Directory) -> Markup {
    let query = &directory.query;
    html! {
        section.card #users aria-labelledby="users-title" {
            h2 #users-title { "Users" }
            form.row method="get" action="/admin#users" role="search" {
                div.field {
                    label for="q" { "Login begins with" }
                    input #q name="q" type="search" value=(query.text) autocapitalize="none" spellcheck="false" autocomplete="off";
                }
                button.quiet { "Search" }
            }
            @if let Some(problem) = &directory.problem {
                p.note.warn { (problem) }
            } @else if directory.logins.is_empty() {
                p.muted { @if query.after.is_some() { "No more users." } @else { "No users." } }
            } @else {
                ul.list.names { @for login in &directory.logins { li { (login) } } }
            }
            @if query.after.is_some() || directory.has_more {
                p.row {
                    @if query.after.is_some() { a.button.quiet href=(address(&query.text, None)) { "First page" } }
                    @if let (true, Some(last)) = (directory.has_more, directory.logins.last()) {
                        a.button.quiet href=(address(&query.text, Some(last))) { "Next page" }
                    }
                }
            }
        }
    }
}

fn address(text: &str, after: Option<&str>) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let after = after.map(|login| format!("&after={}", encode(login))).unwrap_or_default();
    format!("/admin?q={}{after}#users", encode(text))
}
