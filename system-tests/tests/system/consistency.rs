//! A deployment to a cloud that knows new resources only some moments later, as AWS does: over a number of
//! seeds nothing fails, nothing is missing, and nothing is left.
//!
//! `make consistency` runs it over 20 seeds and `make test` over one. The message names a failing seed: `make
//! consistency SEEDS=1 FIRST_SEED=N` runs it again.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ec2::types::{Filter, RouteTable, Subnet};
use process::settings::{Env, Vars as _};

use crate::support::{Cloud, deployer_of, eventually, say, stripped, text};

const STACK: &str = "new";
/// How long AWS may list a deleted resource; many times the local cloud's delay.
const FORGOTTEN: Duration = Duration::from_secs(20);

#[test]
fn every_seed_is_deployed_and_destroyed_at_the_first_attempt() {
    let number = |name: &str| Env.get(name).and_then(|text| text.parse::<u64>().ok());
    let seeds = number("VIGIA_CONSISTENCY_SEEDS").unwrap_or(1);
    let first = number("VIGIA_CONSISTENCY_FIRST_SEED").unwrap_or(1);
    let mut failed = Vec::new();
    let mut survived = BTreeMap::<String, u64>::new();
    for seed in first..first + seeds {
        match deployed_and_destroyed(seed) {
            Ok(answers) => {
                let total: u64 = answers.values().sum();
                assert!(total > 0, "seed {seed}: a cloud that knows everything at once tests nothing");
                say(&format!("seed {seed}: one deployment met {total} such answers: {answers:?}"));
                for (kind, count) in answers {
                    *survived.entry(kind).or_default() += count;
                }
            }
            Err(wrong) => {
                say(&format!("seed {seed} FAILED: {wrong}"));
                failed.push(seed);
            }
        }
    }
    let total: u64 = survived.values().sum();
    let summary = format!(
        "{seeds} seeds, {} failed deployments, {} such answers in each on average: {survived:?}",
        failed.len(),
        total / seeds.max(1)
    );
    say(&summary);
    if let Some(file) = std::env::var_os("VIGIA_CONSISTENCY_REPORT") {
        std::fs::write(file, format!("{summary}\n")).expect("the report is written");
    }
    assert!(failed.is_empty(), "failed with the seeds {failed:?}");
}

/// Returns, by kind, how many of AWS's early answers the deployment met.
fn deployed_and_destroyed(seed: u64) -> Result<BTreeMap<String, u64>, String> {
    let cloud = Cloud::start_with_seed(seed);
    run(&cloud, &["deploy", "--workers", "1", "--artifacts", artifacts()])?;
    let answers = met_by_deployer(&cloud);
    let again = run(&cloud, &["deploy", "--artifacts", artifacts()])?;
    if !again.contains("nothing changed") {
        return Err(format!("the second deployment changed something: {again}"));
    }
    dual_stack(&cloud)?;
    run(&cloud, &["destroy", "--yes"])?;
    eventually(&format!("nothing is left of seed {seed}"), FORGOTTEN, || {
        let left = cloud.observer.census(STACK);
        if left.is_empty() { Ok(()) } else { Err(left.to_string()) }
    });
    Ok(answers)
}

fn artifacts() -> &'static str {
    stripped().to_str().expect("a path of letters")
}

fn run(cloud: &Cloud, arguments: &[&str]) -> Result<String, String> {
    let output = cloud.bootstrap(STACK, arguments);
    let said = text(&output);
    if output.status.success() { Ok(said) } else { Err(format!("bootstrap {arguments:?}: {said}")) }
}

/// Excludes answers to workers, load balancers, the reconciler and this test.
fn met_by_deployer(cloud: &Cloud) -> BTreeMap<String, u64> {
    let report = cloud.control("consistency");
    let own = report["callers"][deployer_of(STACK)].as_object().into_iter().flatten();
    own.map(|(kind, count)| (kind.clone(), count.as_u64().unwrap_or_default())).collect()
}

/// Returns whether four subnets have IPv6 blocks and both sides have their routes.
fn dual_stack(cloud: &Cloud) -> Result<(), String> {
    let filter = || Filter::builder().name("tag:vigia:stack").values(STACK).build();
    let observer = &cloud.observer;
    let subnets = observer.wait(observer.ec2.describe_subnets().filters(filter()).send());
    let subnets = subnets.map_err(|error| format!("{error:?}"))?;
    let has_block = |subnet: &&Subnet| {
        let mut blocks = subnet.ipv6_cidr_block_association_set().iter();
        blocks.any(|block| block.ipv6_cidr_block().is_some_and(|block| block.ends_with("/64")))
    };
    let with_block = subnets.subnets().iter().filter(has_block).count();
    if with_block != 4 {
        return Err(format!("{with_block} subnets have IPv6: {:?}", subnets.subnets()));
    }
    let tables = observer.wait(observer.ec2.describe_route_tables().filters(filter()).send());
    let tables = tables.map_err(|error| format!("{error:?}"))?;
    let leads_out = |table: &RouteTable, is_egress_only: bool| {
        table.routes().iter().any(|route| {
            let is_everywhere = route.destination_ipv6_cidr_block() == Some("::/0");
            is_everywhere && route.egress_only_internet_gateway_id().is_some() == is_egress_only
        })
    };
    let of_both_sides =
        [false, true].map(|side| tables.route_tables().iter().any(|table| leads_out(table, side)));
    if of_both_sides != [true, true] {
        return Err(format!("a route to ::/0 is missing: {:?}", tables.route_tables()));
    }
    Ok(())
}
