//! The list of ten thousand users: the calls to S3, the time of the first byte, and the memory.

use std::time::Duration;

use accounts::Cost;
use anyhow::ensure;
use axum::http::header::{ACCEPT, AUTHORIZATION};

use super::client::{Ask, Connection};
use super::findings::Findings;
use super::ground::{ADMIN_TOKEN, Crowd, Ground};
use super::worker::Worker;
use crate::table::{milliseconds, progress, seconds, thousands};

const USERS: usize = 10_000;
const PAGES: u64 = 10;

const GOAL_FIRST_BYTE: Duration = Duration::from_millis(300);
const GOAL_GROWTH_KIB: usize = 20 * 1000 * 1000 / 1024;

const FORMATS: [(&str, &str); 3] =
    [("JSON", "application/json"), ("NDJSON", "application/x-ndjson"), ("CSV", "text/csv")];

pub async fn measure(ground: &mut Ground) -> anyhow::Result<Findings> {
    let cost = Cost::default();
    let crowd = Crowd::named("user", USERS);
    ground.clear();
    ground.settle(&crowd, &cost)?;
    let worker = Worker::start(ground, &cost).await?;
    let mut connection = Connection::open(worker.addr).await?;
    let mut found = Findings::new(
        "GET /list of 10,000 users",
        ["fields", "form", "LIST", "GET", "first byte ms", "whole s", "kB", "memory grows by kB"],
    );
    for (fields, query, gets) in [("login", "?fields=login", 0), ("all", "", USERS as u64)] {
        for (form, accept) in FORMATS {
            progress(&format!("/list, {fields}, {form}"));
            let ask = Ask::get(&format!("/list{query}")).with(ACCEPT, accept);
            let ask = ask.with(AUTHORIZATION, &format!("Bearer {ADMIN_TOKEN}"));
            worker.forget_peak()?;
            let before_kib = worker.resident_kib()?;
            let _earlier = ground.s3.take_calls();
            let answer = connection.send(&ask).await?;
            let calls = ground.s3.take_calls();
            let growth_kib = worker.peak_kib()?.saturating_sub(before_kib);
            ensure!(answer.status == 200, "answered {}: {:?}", answer.status, answer.body);
            let listed = users(&answer.body);
            found.row([
                fields.to_owned(),
                form.to_owned(),
                calls.list.to_string(),
                thousands(usize::try_from(calls.get).unwrap_or(usize::MAX)),
                milliseconds(answer.first_byte),
                seconds(answer.whole),
                thousands(answer.body.len() / 1000),
                thousands(growth_kib * 1024 / 1000),
            ]);
            let is_met = calls.list == PAGES
                && calls.get == gets
                && calls.head == 0
                && listed == USERS
                && answer.first_byte < GOAL_FIRST_BYTE
                && growth_kib < GOAL_GROWTH_KIB;
            found.goal(
                format!(
                    "/list, {fields}, {form}: {} users, {} LIST and {} GET, first byte after {:.0} ms, {:.1} MB more \
                     (goal: {USERS}, {PAGES}, {gets}, under {} ms, under 20 MB)",
                    listed,
                    calls.list,
                    calls.get,
                    super::client::milliseconds(answer.first_byte),
                    super::client::float(growth_kib) * 1024.0 / 1e6,
                    GOAL_FIRST_BYTE.as_millis()
                ),
                is_met,
            );
        }
    }
    found
        .notes
        .push("Memory growth: peak resident memory during the request, minus that before it.".to_owned());
    Ok(found)
}

/// Returns the number of users; each name is in the list once, in either format.
fn users(list: &[u8]) -> usize {
    memchr::memmem::find_iter(list, b"\"user-").count()
}
