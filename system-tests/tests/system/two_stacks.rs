//! Two stacks deployed at the same moment, in one account and region: neither ever names a resource of the
//! other, and removing one does not affect the other.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::census::Observer;
use crate::privileges::{self, Use};
use crate::support::{Cloud, Poller, deployer_of, eventually, say, stripped};

const PATIENCE: Duration = Duration::from_secs(120);

/// A stack; its deployer is a user without permissions for any other.
struct Stack<'a> {
    cloud: &'a Cloud,
    name: &'static str,
}

#[test]
fn two_stacks_deployed_at_once_never_touch_each_other() {
    let cloud = Cloud::start();
    let observer = &cloud.observer;
    let [one, two] = ["one", "two"].map(|name| Stack { cloud: &cloud, name });
    let artifacts = stripped().to_string_lossy().into_owned();
    let deploy = ["deploy", "--workers", "1", "--artifacts", artifacts.as_str()];
    std::thread::scope(|scope| {
        for stack in [&one, &two] {
            scope.spawn(move || stack.must(&deploy));
        }
    });
    let mut belongings = [one.belongings(observer), two.belongings(observer)];
    let poller = Poller::start(&two.url());

    one.must(&["scale", "2"]);
    eventually("one has two workers", PATIENCE, || match cloud.instances("one", "running").len() {
        2 => Ok(()),
        n => Err(n.to_string()),
    });
    belongings[0].extend(one.belongings(observer));
    one.must(&["destroy", "--yes"]);
    let left = observer.census("one");
    assert!(left.is_empty(), "{left}");
    poller.must_have_lost_nothing("the other stack was scaled and destroyed");
    belongings[1].extend(two.belongings(observer));
    let again = two.must(&deploy);
    assert!(again.contains("nothing changed"), "{again}");

    let uses = privileges::uses(&cloud.control("uses"));
    let [of_one, of_two] = belongings;
    for (stack, others) in [(&one, &of_two), (&two, &of_one)] {
        let own: Vec<&Use> = uses.iter().filter(|one| stack.is_by(one)).collect();
        for who in ["worker", "lb", "reconciler"] {
            let who = format!("vigia-{}-{who}", stack.name);
            assert!(own.iter().any(|one| one.who == who), "{who} did nothing");
        }
        let trespasses: Vec<&&Use> = own.iter().filter(|one| names(one, others)).collect();
        assert!(trespasses.is_empty(), "{}: {trespasses:#?}", stack.name);
        say(&format!(
            "{}: {} uses, and none names one of the other's {}",
            stack.name,
            own.len(),
            others.len()
        ));
    }
    // The comparison can fail: it sees resources of the stack itself.
    assert!(uses.iter().filter(|use_| one.is_by(use_)).any(|use_| names(use_, &of_one)));
    two.must(&["destroy", "--yes"]);
    assert!(observer.census("two").is_empty());
}

/// Returns whether a use names one of these, in its resource or its parameters.
fn names(one: &Use, belongings: &BTreeSet<String>) -> bool {
    let resource = one.resource.split(['/', ':']).map(str::to_owned);
    resource.chain(one.names.iter().cloned()).any(|part| belongings.contains(&part))
}

impl Stack<'_> {
    fn must(&self, arguments: &[&str]) -> String {
        self.cloud.must(self.name, arguments)
    }

    fn url(&self) -> String {
        self.must(&["url"])
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .expect("a URL")
            .to_owned()
    }

    /// Returns whether a caller of this stack did it.
    fn is_by(&self, one: &Use) -> bool {
        one.who == deployer_of(self.name) || one.who.starts_with(&format!("vigia-{}-", self.name))
    }

    /// Returns ids and names of everything that the stack has now.
    fn belongings(&self, observer: &Observer) -> BTreeSet<String> {
        let ids = observer.ids(self.name);
        assert!(ids.len() >= 15, "{ids:?}");
        let names = ["worker", "lb", "reconciler", "reconcile", "vpc", "public-0", "private-0"];
        let names = names.map(|what| format!("vigia-{}-{what}", self.name));
        let buckets =
            ["data", "control"].map(|what| format!("vigia-{}-{what}-000000000000-us-east-1", self.name));
        ids.into_iter().chain(names).chain(buckets).chain([self.name.to_owned()]).collect()
    }
}
