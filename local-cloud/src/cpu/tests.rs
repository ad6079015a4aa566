use super::*;

fn percent(text: &str) -> Percent {
    text.parse().expect("valid")
}

#[test]
fn a_share_is_a_whole_percentage() {
    assert_eq!(percent("10%").get(), 10);
    assert_eq!(percent("250").get(), 250);
    for wrong in ["0%", "-1", "ten", "", "10.5%", "999999999"] {
        assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
    }
}

#[test]
fn the_baseline_is_for_standard_credits() {
    let policy = Policy { quota: None, baseline: Some(percent("10")) };
    let limits =
        [Some(Credits::Standard), Some(Credits::Unlimited), None].map(|credits| policy.limit(credits));
    assert_eq!(limits, [Some(percent("10")), None, None]);
}

#[test]
fn the_lower_of_quota_and_baseline_holds() {
    let policy = Policy { quota: Some(percent("50")), baseline: Some(percent("10")) };
    assert_eq!(policy.limit(Some(Credits::Standard)), Some(percent("10")));
    assert_eq!(policy.limit(Some(Credits::Unlimited)), Some(percent("50")));
}

#[test]
fn t3_and_later_are_unlimited_by_default() {
    let types = ["t2.micro", "t3.micro", "t3a.nano", "t4g.nano", "m5.large", "t1.micro"];
    let (standard, unlimited) = (Some(Credits::Standard), Some(Credits::Unlimited));
    assert_eq!(types.map(Credits::default_of), [standard, unlimited, unlimited, unlimited, None, None]);
}

/// A process that uses all the time it gets, and how long it takes to use this much.
struct Greedy {
    child: std::process::Child,
    processes: Arc<Processes>,
}

impl Greedy {
    fn start() -> Self {
        use std::os::unix::process::CommandExt as _;
        let mut shell = std::process::Command::new("sh");
        let child = shell.args(["-c", "while :; do :; done"]).process_group(0).spawn().expect("a shell");
        let processes = Arc::<Processes>::default();
        processes.add(nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id")));
        Self { child, processes }
    }

    async fn uses(&self, time: std::time::Duration) -> std::time::Duration {
        let used = || self.processes.cpu_time(&self.processes.members());
        let (before, since) = (used(), std::time::Instant::now());
        while used().saturating_sub(before) < time {
            assert!(since.elapsed().as_secs() < 60, "it gets nothing");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        since.elapsed()
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const SOME: std::time::Duration = std::time::Duration::from_millis(300);

#[tokio::test]
async fn stopping_limits_a_process() {
    let greedy = Greedy::start();
    let (limit, seen) = watch::channel(Some(percent("10")));
    let took = tokio::select! {
        () = duty_cycle::run(&greedy.processes, &seen) => unreachable!("the limit stays"),
        took = greedy.uses(SOME) => took,
    };
    assert!(took >= SOME * 6, "{SOME:?} of CPU time within {took:?}");
    drop(limit);
}

#[tokio::test]
async fn a_process_that_hangs_on_purpose_is_not_woken() {
    let greedy = Greedy::start();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", greedy.child.id())).expect("it exists");
        stat.contains(") T ")
    };
    greedy.processes.hang();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_stopped() {
        assert!(std::time::Instant::now() < deadline, "it does not stop");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    greedy.processes.throttle(nix::sys::signal::Signal::SIGCONT);
    assert!(is_stopped(), "it was woken");
}

#[tokio::test]
async fn a_running_process_is_limited_by_what_this_machine_has() {
    let greedy = Greedy::start();
    let cpu =
        Cpu::new(&format!("test-{}", greedy.child.id()), Policy::default(), None, greedy.processes.clone());
    cpu.force(Some(percent("10")));
    let took = tokio::select! {
        () = cpu.enforce() => unreachable!("it never ends"),
        took = greedy.uses(SOME) => took,
    };
    assert!(took >= SOME * 6, "{SOME:?} of CPU time within {took:?}");
    drop(greedy);
    cpu.end();
}
