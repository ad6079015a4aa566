//! Whether the time of an answer tells if a login exists: wrong passwords for an existing login and for a
//! missing one, one after the other, in random order.
//!
//! Each login is used once, so that its count of failures has no effect.

use std::collections::BTreeSet;

use accounts::Cost;
use anyhow::{Context as _, ensure};

use super::client::{Answer, Ask, Connection, milliseconds};
use super::findings::Findings;
use super::ground::{Crowd, Ground};
use super::rank::{auc, auc_deviation};
use super::worker::Worker;
use crate::balancer::statistics::Spread;
use crate::table::progress;

const PAIRS: usize = 500;
/// Requests for other logins first, to warm connections and caches.
const WARM_UP: usize = 10;
const WRONG: &str = "not zzyzx road";

const GOAL_MS: f64 = 2.0;
const GOAL_SHARE: f64 = 0.02;
const GOAL_AUC: std::ops::RangeInclusive<f64> = 0.45..=0.55;

/// Everything an answer shows except its time.
type Shape = (u16, Vec<u8>, BTreeSet<String>);

pub async fn measure(ground: &mut Ground) -> anyhow::Result<Findings> {
    progress(&format!("{PAIRS} + {PAIRS} wrong passwords"));
    let cost = Cost::default();
    let known = Crowd::named("known", PAIRS + WARM_UP);
    // Names of the same length.
    let unknown = Crowd::named("ghost", PAIRS + WARM_UP);
    ground.clear();
    ground.settle(&known, &cost)?;
    let worker = Worker::start(ground, &cost).await?;
    let mut connection = Connection::open(worker.addr).await?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut times = [Vec::new(), Vec::new()];
    let mut shapes = [BTreeSet::new(), BTreeSet::new()];
    for turn in 0..PAIRS + WARM_UP {
        let order = if random.bool() { [0, 1] } else { [1, 0] };
        for kind in order {
            let login = [known.login(turn), unknown.login(turn)][kind];
            let answer = connection.send(&Ask::sign_in(login, WRONG)).await?;
            ensure!(answer.status == 401, "{login}: answered {}: {:?}", answer.status, answer.body);
            if turn >= WARM_UP {
                times[kind].push(milliseconds(answer.whole));
                shapes[kind].insert(shape(&answer));
            }
        }
    }
    let mut found = Findings::new(
        "Wrong passwords: an existing login against a missing one",
        ["login", "answers", "lower quartile ms", "median ms", "upper quartile ms", "max ms"],
    );
    for (name, times) in ["exists", "does not exist"].into_iter().zip(&times) {
        let mut sorted = times.clone();
        sorted.sort_by(f64::total_cmp);
        let at =
            |part: usize| sorted.get(sorted.len() * part / 4).or(sorted.last()).copied().unwrap_or_default();
        let ms = |value: f64| format!("{value:.2}");
        found.row([name.to_owned(), times.len().to_string(), ms(at(1)), ms(at(2)), ms(at(3)), ms(at(4))]);
    }
    let [known, unknown] = &times;
    let median = |times: &[f64]| Spread::of(times.iter().copied()).context("nothing was measured");
    let (known_median, unknown_median) = (median(known)?.median, median(unknown)?.median);
    let difference = (known_median - unknown_median).abs();
    let limit = GOAL_MS.max(GOAL_SHARE * known_median.min(unknown_median));
    let area = auc(known, unknown).context("nothing was measured")?;
    found.notes.push(format!(
        "If both came from one distribution, the AUC's standard deviation around 0.5 would be {:.3}.",
        auc_deviation(known.len(), unknown.len())
    ));
    found.goal(
        format!("the medians differ by {difference:.2} ms (goal: at most 2 ms or 2 %, here {limit:.2} ms)"),
        difference <= limit,
    );
    found.goal(
        format!("the AUC is {area:.3} (goal: {} to {})", GOAL_AUC.start(), GOAL_AUC.end()),
        GOAL_AUC.contains(&area),
    );
    let [known, unknown] = &shapes;
    found.goal(
        format!(
            "{} different answers in status, body and names of headers for both together (goal: 1)",
            known.union(unknown).count()
        ),
        known.len() == 1 && known == unknown,
    );
    Ok(found)
}

fn shape(answer: &Answer) -> Shape {
    let names = answer.headers.keys().map(|name| name.as_str().to_owned()).collect();
    (answer.status, answer.body.to_vec(), names)
}
