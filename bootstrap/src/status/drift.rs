//! Each difference from the last deployment, in one sentence with its fix.
//!
//! | looked at | differs if |
//! |---|---|
//! | instances of the stack | of another release; unknown to the reconciler; remembered, but not there |
//! | the schedule | missing, disabled, of another period, or without its target |
//! | the function | missing, not active, without IPv6, or with another program than the deployment left |
//! | the address | missing, or no instance has it |
//! | security groups | a rule, in or out, that no deployment makes, or a missing rule |
//! | subnets, route tables | without an IPv6 block; without a working way out |
//!
//! A resource that cannot be read gets a sentence of its own: a missing permission hides nothing.

use std::collections::BTreeSet;

use fleet::memory::Memory;
use fleet::release::Release;
use fleet::stack::{ROLE_LB, ROLE_WORKER};
use fleet::{LB_ADMIN_PORT, PUBLIC_PORT, TLS_PORT, WORKER_PORT};
use jiff::{SignedDuration, Timestamp};

use super::seen::{
    FunctionSeen, InstanceSeen, Port, RuleSeen, ScheduleSeen, Seen, Source, SubnetSeen, TableSeen,
};
use crate::resources::network::ipv6::Ipv6;

/// The reconciler adopts instances that it did not launch within a tick or two.
const YOUNG: SignedDuration = SignedDuration::from_secs(90);
/// How many ids a sentence names.
const SHOWN: usize = 5;

/// The facts that drift is judged from.
pub(super) struct Facts<'a> {
    pub seen: &'a Seen,
    pub release: &'a Release,
    pub memory: &'a Memory,
    /// Whether the stack serves TLS.
    pub has_tls: bool,
    pub now: Timestamp,
}

pub(super) fn drift(facts: &Facts<'_>) -> Vec<String> {
    let mut drift = Vec::new();
    let Seen { instances, schedule, function, addresses, rules, subnets, tables } = facts.seen;
    match instances {
        Ok(instances) => drift.extend(of_instances(facts, instances)),
        Err(why) => drift.push(format!("The instances are not known: {why}.")),
    }
    match addresses {
        Ok(addresses) if addresses.is_empty() => {
            drift.push("The stack has no address. `make deploy` allocates one.".to_owned());
        }
        Ok(addresses) => {
            drift.extend(addresses.values().filter(|address| address.holder.is_none()).map(|address| {
                let ip = &address.ip;
                format!(
                    "The address {ip} belongs to no instance. The reconciler gives it to a load balancer."
                )
            }))
        }
        Err(why) => drift.push(format!("The address is not known: {why}.")),
    }
    match schedule {
        Ok(ScheduleSeen::Right) => {}
        Ok(other) => {
            drift.push(format!("{} Nothing heals or scales until `make deploy`.", of_schedule(other)))
        }
        Err(why) => drift.push(format!("The schedule is not known: {why}.")),
    }
    match function {
        Ok(FunctionSeen::Right) => {}
        Ok(other) => drift.push(of_function(other)),
        Err(why) => drift.push(format!("The reconciler's function is not known: {why}.")),
    }
    match rules {
        Ok(rules) => {
            drift.extend(of_rules(&rules.incoming, facts.has_tls));
            drift.extend(of_egress(&rules.groups, &rules.outgoing));
        }
        Err(why) => drift.push(format!("The security groups are not known: {why}.")),
    }
    match subnets {
        Ok(subnets) => drift.extend(of_subnets(subnets)),
        Err(why) => drift.push(format!("The subnets are not known: {why}.")),
    }
    match tables {
        Ok(tables) => drift.extend(of_tables(tables)),
        Err(why) => drift.push(format!("The route tables are not known: {why}.")),
    }
    drift
}

fn of_instances(facts: &Facts<'_>, instances: &[InstanceSeen]) -> Vec<String> {
    let Facts { release, memory, .. } = facts;
    let mut drift = Vec::new();
    let ids = |wanted: &dyn Fn(&InstanceSeen) -> bool| {
        instances
            .iter()
            .filter(|one| one.is_live && wanted(one))
            .map(|one| one.id.clone())
            .collect::<Vec<_>>()
    };
    let is_settled =
        |one: &InstanceSeen| one.launched.is_none_or(|launched| facts.now.duration_since(launched) > YOUNG);
    let is_worker = |one: &InstanceSeen| one.role == ROLE_WORKER;
    let is_lb = |one: &InstanceSeen| one.role == ROLE_LB;

    let leaving = |one: &InstanceSeen| memory.leaving.keys().any(|id| id.as_str() == one.id);
    let slots = memory.slots.values().filter_map(|slot| slot.worker.as_ref());
    let in_slots: BTreeSet<&str> = slots.map(|id| id.as_str()).collect();
    let older = ids(&|one| is_worker(one) && one.release.as_deref() != Some(&release.id) && !leaving(one));
    if !older.is_empty() {
        drift.push(format!(
            "{} not of the release {}: {}. The reconciler replaces them; `Held back` and the events show its \
                progress.",
            counted(older.len(), "worker is", "workers are"),
            release.id,
            list(&older)
        ));
    }
    let unknown =
        ids(&|one| is_worker(one) && !leaving(one) && !in_slots.contains(one.id.as_str()) && is_settled(one));
    if !unknown.is_empty() {
        drift.push(format!(
            "{} unknown to the reconciler: {}. It terminates workers without a slot after two minutes.",
            counted(unknown.len(), "worker is", "workers are"),
            list(&unknown)
        ));
    }
    let live: BTreeSet<&str> =
        instances.iter().filter(|one| one.is_live).map(|one| one.id.as_str()).collect();
    let missing: Vec<String> =
        in_slots.iter().filter(|id| !live.contains(*id)).map(|id| (*id).to_owned()).collect();
    if !missing.is_empty() {
        drift.push(format!(
            "EC2 does not list {} that the reconciler remembers: {}. The reconciler replaces a worker that \
                stays missing.",
            counted(missing.len(), "worker", "workers"),
            list(&missing)
        ));
    }
    let known = memory.balancers().flat_map(|balancer| {
        let successor = balancer.successor.as_ref().and_then(|slot| slot.worker.as_ref());
        balancer.holder.as_ref().map(|holder| &holder.id).into_iter().chain(successor).chain(&balancer.former)
    });
    let expected: BTreeSet<&str> = known.map(|id| id.as_str()).chain(facts.seen.holders()).collect();
    let stray = ids(&|one| is_lb(one) && !expected.contains(one.id.as_str()) && is_settled(one));
    if !stray.is_empty() {
        drift.push(format!(
            "{} without the address: {}. The reconciler terminates such a load balancer after ten minutes.",
            counted(stray.len(), "load balancer is", "load balancers are"),
            list(&stray)
        ));
    }
    let wanted = release.balancer.as_ref().map(|balancer| balancer.id.as_str());
    let holders = ids(&|one| facts.seen.holders().any(|id| id == one.id) && one.release.as_deref() != wanted);
    if let Some(holder) = holders.first() {
        drift.push(format!("The load balancer {holder} is not of the release. `make deploy` replaces it."));
    }
    let nameless = ids(&|one| !is_worker(one) && !is_lb(one));
    if !nameless.is_empty() {
        drift.push(format!(
            "{} tagged with the stack's name, but neither a worker nor a load balancer: {}. Only `make \
                destroy` terminates such an instance.",
            counted(nameless.len(), "instance is", "instances are"),
            list(&nameless)
        ));
    }
    drift
}

fn of_schedule(seen: &ScheduleSeen) -> String {
    match seen {
        ScheduleSeen::Right => String::new(),
        ScheduleSeen::Missing => "The schedule that starts the reconciler is missing.".to_owned(),
        ScheduleSeen::Disabled => "The schedule that starts the reconciler is disabled.".to_owned(),
        ScheduleSeen::Every(other) => {
            format!("The reconciler is started by `{other}` instead of every minute.")
        }
        ScheduleSeen::WithoutTarget => "The schedule does not start the reconciler.".to_owned(),
    }
}

fn of_function(seen: &FunctionSeen) -> String {
    match seen {
        FunctionSeen::Right => String::new(),
        FunctionSeen::Missing => {
            "The reconciler's function is missing. Nothing heals or scales until `make deploy`.".to_owned()
        }
        FunctionSeen::NotActive(state) => {
            let means = match state.as_str() {
                "inactive" => "Lambda wakes it at its next start.",
                "pending" => "Lambda is still preparing it.",
                _ => "`make deploy` repairs it.",
            };
            format!("The reconciler's function is {state}. {means}")
        }
        FunctionSeen::OtherProgram => {
            "The reconciler's function does not run the program of the last deployment. `make deploy` \
                uploads it again."
                .to_owned()
        }
        FunctionSeen::WithoutIpv6 => {
            "The reconciler's function is not allowed to use IPv6, so it may be unable to reach EC2. `make \
                deploy` allows it."
                .to_owned()
        }
    }
}

/// Other groups of the stack are the operator's own.
const GROUPS: [&str; 3] = ["lb", "worker", "reconciler"];
const WORLD: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Judges the egress rules. A deployment allows all egress to both families, and makes no other egress rule.
fn of_egress(groups: &[String], rules: &[RuleSeen]) -> Vec<String> {
    let is_everything = |rule: &RuleSeen, to: &str| {
        rule.port == Port::everything() && rule.from == Source::Block(to.to_owned())
    };
    let ours: Vec<&String> = groups.iter().filter(|group| GROUPS.contains(&group.as_str())).collect();
    let mut drift = Vec::new();
    for group in &ours {
        let of_group = || rules.iter().filter(|rule| rule.group == **group);
        for to in WORLD.iter().filter(|to| !of_group().any(|rule| is_everything(rule, to))) {
            drift.push(format!(
                "The security group of the {group} does not let everything out to {to}. `make deploy` opens it."
            ));
        }
        for rule in of_group().filter(|rule| !WORLD.iter().any(|to| is_everything(rule, to))) {
            drift.push(format!(
                "The security group of the {group} has a rule for {} out to {}, which `make deploy` did not \
                    create. Remove the rule, unless you added it.",
                rule.port, rule.from
            ));
        }
    }
    drift
}

fn of_subnets(subnets: &[SubnetSeen]) -> Vec<String> {
    let sentence = |subnet: &SubnetSeen| match &subnet.ipv6 {
        Ipv6::Associated(_) => None,
        Ipv6::Associating => Some(format!(
            "The IPv6 block of the subnet {} is still being associated. Look again in a minute.",
            subnet.name
        )),
        Ipv6::Missing | Ipv6::Failed(_) => Some(format!(
            "The subnet {} has no IPv6 block, so the reconciler may be unable to reach EC2 from it. `make \
                deploy` adds one.",
            subnet.name
        )),
    };
    subnets.iter().filter_map(sentence).collect()
}

/// Judges the routes of each table against the blueprint.
fn of_tables(tables: &[TableSeen]) -> Vec<String> {
    let mut drift = Vec::new();
    for (name, to) in [("public", "0.0.0.0/0"), ("public", "::/0"), ("private", "::/0")] {
        let has_route =
            |table: &TableSeen| table.name == name && table.routes.iter().any(|route| route == to);
        if !tables.iter().any(has_route) {
            drift.push(format!("The {name} subnets have no working route to {to}. `make deploy` adds it."));
        }
    }
    drift
}

/// Returns whether a deployment makes such a rule. The public ports may be open to any block: that is the
/// operator's choice.
fn is_expected(rule: &RuleSeen, has_tls: bool) -> bool {
    let is = |port: u16| rule.port == Port::Tcp(port);
    match (rule.group.as_str(), &rule.from) {
        ("lb", Source::Block(_)) => is(PUBLIC_PORT) || (has_tls && is(TLS_PORT)),
        ("lb", Source::Group(from)) => is(LB_ADMIN_PORT) && from == "reconciler",
        ("worker", Source::Group(from)) => is(WORKER_PORT) && (from == "lb" || from == "reconciler"),
        ("worker" | "reconciler", _) => false,
        // Other groups that a deployment makes are not judged here.
        _ => true,
    }
}

fn of_rules(rules: &[RuleSeen], has_tls: bool) -> Vec<String> {
    let mut drift: Vec<String> = rules
        .iter()
        .filter(|rule| !is_expected(rule, has_tls))
        .map(|rule| {
            format!(
                "The security group of the {} lets {} in on {} by a rule that `make deploy` did not create. \
                    Remove the rule, unless you added it.",
                rule.group, rule.from, rule.port
            )
        })
        .collect();
    let has = |group: &str, port: u16, from: Option<&str>| {
        rules.iter().any(|rule| {
            let fits = match (&rule.from, from) {
                (Source::Block(_), None) => true,
                (Source::Group(seen), Some(wanted)) => seen == wanted,
                _ => false,
            };
            rule.group == group && rule.port == Port::Tcp(port) && fits
        })
    };
    let mut wanted = vec![
        ("lb", PUBLIC_PORT, None),
        ("lb", LB_ADMIN_PORT, Some("reconciler")),
        ("worker", WORKER_PORT, Some("lb")),
        ("worker", WORKER_PORT, Some("reconciler")),
    ];
    if has_tls {
        wanted.push(("lb", TLS_PORT, None));
    }
    for (group, port, from) in wanted.into_iter().filter(|(group, port, from)| !has(group, *port, *from)) {
        let from = from.map_or("any address".to_owned(), |from| format!("the {from}"));
        drift.push(format!(
            "The security group of the {group} does not let {from} in on port {port}. `make deploy` opens it."
        ));
    }
    drift
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn list(ids: &[String]) -> String {
    let rest = ids.len().saturating_sub(SHOWN);
    let shown = ids[..ids.len() - rest].join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}

#[cfg(test)]
mod tests {
    use fleet::release::BalancerSpec;
    use fleet::{Profile, WorkerId};

    use super::super::seen::{AddressSeen, RulesSeen};
    use std::collections::BTreeMap;

    use super::*;
    use crate::resources::instance::example;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().expect("a time")
    }

    fn release() -> Release {
        let spec = example();
        let stack = "a".parse().expect("valid");
        let mut release = Release::new(stack, Profile::Secure, "1".to_owned(), spec.clone());
        release.balancer = Some(BalancerSpec::new("eipalloc-1".to_owned(), spec));
        release
    }

    fn instance(id: &str, role: &str, release: &str) -> InstanceSeen {
        InstanceSeen {
            id: id.to_owned(),
            role: role.to_owned(),
            release: Some(release.to_owned()),
            launched: "2026-01-01T10:00:00Z".parse().ok(),
            is_live: true,
        }
    }

    fn rule(group: &str, port: u16, from: Source) -> RuleSeen {
        RuleSeen { group: group.to_owned(), port: Port::Tcp(port), from }
    }

    fn from(group: &str) -> Source {
        Source::Group(group.to_owned())
    }

    fn block(text: &str) -> Source {
        Source::Block(text.to_owned())
    }

    fn out(group: &str, to: &str) -> RuleSeen {
        RuleSeen { group: group.to_owned(), port: Port::everything(), from: block(to) }
    }

    fn subnet(ipv6: Ipv6) -> SubnetSeen {
        SubnetSeen { name: "private-0".to_owned(), ipv6 }
    }

    /// A stack as `deploy` leaves it, with one worker.
    fn seen() -> Seen {
        let release = release();
        let balancer = release.balancer.as_ref().expect("set").id.clone();
        Seen {
            instances: Ok(vec![
                instance("i-1", ROLE_WORKER, &release.id),
                instance("i-1b", ROLE_LB, &balancer),
            ]),
            schedule: Ok(ScheduleSeen::Right),
            function: Ok(FunctionSeen::Right),
            addresses: Ok(BTreeMap::from([(
                0,
                AddressSeen { ip: "192.0.2.1".to_owned(), holder: Some("i-1b".to_owned()) },
            )])),
            rules: Ok(RulesSeen {
                groups: GROUPS.map(str::to_owned).to_vec(),
                incoming: vec![
                    rule("lb", 5000, block("0.0.0.0/0")),
                    rule("lb", 9000, from("reconciler")),
                    rule("worker", 8080, from("lb")),
                    rule("worker", 8080, from("reconciler")),
                ],
                outgoing: GROUPS.iter().flat_map(|group| WORLD.map(|to| out(group, to))).collect(),
            }),
            subnets: Ok(vec![subnet(Ipv6::Associated("2001:db8::/64".parse().expect("a block")))]),
            tables: Ok(vec![
                TableSeen { name: "public".to_owned(), routes: WORLD.map(str::to_owned).to_vec() },
                TableSeen { name: "private".to_owned(), routes: vec!["::/0".to_owned()] },
            ]),
        }
    }

    fn memory() -> Memory {
        let text = r#"{"slots":{"0":{"attempt":1,"release":"r","subnet":"s","zone":"z","phase":"healthy",
            "since":"2026-01-01T10:00:00Z","worker":"i-1","addr":null}},
            "balancer":{"holder":{"id":"i-1b","addr":null,"since":"2026-01-01T10:00:00Z","answered":true,
            "silent_since":null}}}"#;
        serde_json::from_str(text).expect("as it is in state.json")
    }

    fn judged(seen: &Seen, memory: &Memory) -> Vec<String> {
        drift(&Facts { seen, release: &release(), memory, has_tls: false, now: now() })
    }

    fn only(drift: &[String], says: &str) {
        assert!(drift.len() == 1 && drift[0].contains(says), "{says}: {drift:?}");
    }

    #[test]
    fn a_stack_as_it_was_deployed_has_no_drift() {
        assert_eq!(judged(&seen(), &memory()), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_one_sentence() {
        type Change = fn(&mut Seen);
        let changes: [(Change, &str); 17] = [
            (|seen| seen.schedule = Ok(ScheduleSeen::Disabled), "disabled"),
            (|seen| seen.schedule = Ok(ScheduleSeen::Every("rate(5 minutes)".to_owned())), "rate(5 minutes)"),
            (|seen| seen.function = Ok(FunctionSeen::Missing), "function is missing"),
            (|seen| seen.function = Ok(FunctionSeen::OtherProgram), "does not run the program"),
            (|seen| seen.function = Ok(FunctionSeen::WithoutIpv6), "not allowed to use IPv6"),
            (|seen| seen.subnets = Ok(vec![subnet(Ipv6::Missing)]), "private-0 has no IPv6 block"),
            (|seen| seen.subnets = Ok(vec![subnet(Ipv6::Associating)]), "still being associated"),
            (
                |seen| seen.tables.as_mut().expect("seen")[1].routes.clear(),
                "private subnets have no working route to ::/0",
            ),
            (
                |seen| {
                    let rules = seen.rules.as_mut().expect("seen");
                    rules.outgoing.retain(|rule| *rule != out("reconciler", "::/0"));
                },
                "of the reconciler does not let everything out to ::/0",
            ),
            (
                |seen| seen.rules.as_mut().expect("seen").outgoing.push(out("worker", "10.0.0.0/8")),
                "of the worker has a rule for every port out to 10.0.0.0/8",
            ),
            (
                |seen| {
                    let rules = seen.rules.as_mut().expect("seen");
                    rules.outgoing.push(rule("lb", 443, block("0.0.0.0/0")));
                },
                "of the lb has a rule for port 443 out to 0.0.0.0/0",
            ),
            (|seen| seen.addresses = Ok(BTreeMap::new()), "no address"),
            (|seen| seen.addresses = Err("denied".to_owned()), "not known: denied"),
            (
                |seen| {
                    seen.rules.as_mut().expect("seen").incoming.push(rule(
                        "worker",
                        22,
                        Source::Block("0.0.0.0/0".to_owned()),
                    ))
                },
                "0.0.0.0/0 in on port 22",
            ),
            (
                |seen| {
                    seen.rules.as_mut().expect("seen").incoming.push(RuleSeen {
                        group: "reconciler".to_owned(),
                        port: Port::Other("everything".to_owned()),
                        from: from("lb"),
                    })
                },
                "of the reconciler lets the lb in on everything",
            ),
            (
                |seen| seen.rules.as_mut().expect("seen").incoming.truncate(3),
                "let the reconciler in on port 8080",
            ),
            (
                |seen| seen.instances.as_mut().expect("seen").push(instance("i-2", "", "x")),
                "neither a worker",
            ),
        ];
        for (change, says) in changes {
            let mut seen = seen();
            change(&mut seen);
            only(&judged(&seen, &memory()), says);
        }
    }

    #[test]
    fn unaccounted_instances_are_named_once_old_enough() {
        let with = |launched: &str, role: &str, release: &str| {
            let mut seen = seen();
            let mut one = instance("i-2", role, release);
            one.launched = launched.parse().ok();
            seen.instances.as_mut().expect("seen").push(one);
            seen
        };
        let id = release().id;
        assert!(judged(&with("2026-01-01T11:59:30Z", ROLE_WORKER, &id), &memory()).is_empty());
        only(
            &judged(&with("2026-01-01T11:50:00Z", ROLE_WORKER, &id), &memory()),
            "unknown to the reconciler: i-2",
        );
        only(&judged(&with("2026-01-01T11:50:00Z", ROLE_LB, &id), &memory()), "without the address: i-2");
        let mut leaving = memory();
        let text = r#"{"stage":"draining","since":"2026-01-01T11:59:00Z","reason":"surplus"}"#;
        let id: WorkerId = "i-2".parse().expect("an id");
        leaving.leaving.insert(id, serde_json::from_str(text).expect("as in state.json"));
        assert!(judged(&with("2026-01-01T11:50:00Z", ROLE_WORKER, "old"), &leaving).is_empty());
    }

    #[test]
    fn missing_workers_and_workers_of_an_older_release_are_named() {
        let mut gone = seen();
        gone.instances.as_mut().expect("seen").remove(0);
        only(&judged(&gone, &memory()), "EC2 does not list 1 worker");
        let mut old = seen();
        old.instances.as_mut().expect("seen")[0].release = Some("old".to_owned());
        only(&judged(&old, &memory()), "1 worker is not of the release");
        let mut lb = seen();
        lb.instances.as_mut().expect("seen")[1].release = Some("old".to_owned());
        only(&judged(&lb, &memory()), "load balancer i-1b is not of the release");
    }

    #[test]
    fn the_port_of_tls_is_open_exactly_when_the_stack_speaks_it() {
        let mut seen = seen();
        seen.rules.as_mut().expect("seen").incoming.push(rule(
            "lb",
            5443,
            Source::Block("10.0.0.0/8".to_owned()),
        ));
        only(&judged(&seen, &memory()), "in on port 5443");
        let facts = Facts { seen: &seen, release: &release(), memory: &memory(), has_tls: true, now: now() };
        assert!(drift(&facts).is_empty());
    }
}
