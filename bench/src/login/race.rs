//! Many clients that register the same login at the same moment, through three workers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use accounts::Cost;
use tokio::task::JoinSet;

use super::client::{Ask, Connection};
use super::findings::Findings;
use super::ground::Ground;
use super::worker::Worker;
use crate::table::{milliseconds, progress};

const ROUNDS: usize = 50;
const CLIENTS: usize = 200;
const WORKERS: usize = 3;

pub async fn measure(ground: &mut Ground) -> anyhow::Result<Findings> {
    progress(&format!("{ROUNDS} races of {CLIENTS} sign-ups over {WORKERS} workers"));
    let cost = Cost::default();
    ground.clear();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(Worker::start(ground, &cost).await?);
    }
    let mut connections = Vec::new();
    for worker in workers.iter().cycle().take(CLIENTS) {
        connections.push(Connection::open(worker.addr).await?);
    }
    let mut statuses = BTreeMap::<u16, usize>::new();
    let (mut with_one_winner, mut winners_sign_in, mut longest) = (0, 0, Duration::ZERO);
    for round in 0..ROUNDS {
        let login = format!("wanted-{round:02}");
        let mut race = JoinSet::new();
        let since = Instant::now();
        for (client, mut connection) in connections.drain(..).enumerate() {
            let password = password(client);
            let ask = Ask::sign_up(&login, &password);
            race.spawn(async move {
                let status = connection.send(&ask).await.map(|answer| answer.status);
                (client, status, connection)
            });
        }
        let mut runners = race.join_all().await;
        longest = longest.max(since.elapsed());
        runners.sort_by_key(|(client, ..)| *client);
        let mut winners = Vec::new();
        for (client, status, connection) in runners {
            // No answer at all is counted as 0.
            let status = status.unwrap_or_default();
            *statuses.entry(status).or_default() += 1;
            if status == 201 {
                winners.push(client);
            }
            connections.push(connection);
        }
        if let [winner] = winners.as_slice() {
            with_one_winner += 1;
            // At the workers in turn, usually not the one where it was registered.
            if let Some(connection) = connections.get_mut(round % WORKERS) {
                let answer = connection.send(&Ask::sign_in(&login, &password(*winner))).await?;
                winners_sign_in += usize::from(answer.status == 303);
            }
        }
    }
    let count = |status: u16| statuses.get(&status).copied().unwrap_or_default();
    let (created, taken) = (count(201), count(409));
    let failed: usize = statuses.range(500..).map(|(_, count)| count).sum();
    let mut found = Findings::new(
        "Sign-ups of one login at the same moment",
        ["races", "clients", "workers", "201", "409", "5xx", "others", "longest race ms"],
    );
    let others = ROUNDS * CLIENTS - created - taken - failed;
    found.row([
        ROUNDS.to_string(),
        CLIENTS.to_string(),
        WORKERS.to_string(),
        created.to_string(),
        taken.to_string(),
        failed.to_string(),
        others.to_string(),
        milliseconds(longest),
    ]);
    found.goal(
        format!("{with_one_winner} of {ROUNDS} races have exactly one winner (goal: all)"),
        with_one_winner == ROUNDS && created == ROUNDS,
    );
    found.goal(
        format!("all losers are told 409: {taken}, 5xx {failed}, others {others} (goal: all, 0, 0)"),
        taken == ROUNDS * (CLIENTS - 1),
    );
    found.goal(
        format!("{winners_sign_in} of {ROUNDS} winners sign in with their password (goal: all)"),
        winners_sign_in == ROUNDS,
    );
    Ok(found)
}

/// Returns each client's own password.
fn password(client: usize) -> String {
    format!("zzyzx road {client}")
}
