//! Every decision has its sentence.

use fleet::memory::LeavingReason;

use super::*;
use crate::held_back::{HolderFault, TerminationBrake, Who};
use crate::observation::Role;

fn id() -> WorkerId {
    "i-1".parse().expect("an id")
}

fn who() -> Who {
    Who::Instance(id())
}

fn count(number: u32) -> fleet::DesiredCount {
    number.try_into().expect("a count")
}

fn x() -> String {
    "x".to_owned()
}

fn y() -> String {
    "y".to_owned()
}

const MINUTES: SignedDuration = SignedDuration::from_mins(3);

#[track_caller]
fn expect<const N: usize, T: Into<Decision>>(sentences: [(T, &str); N]) {
    for (decision, sentence) in sentences {
        assert_eq!(decision.into().to_string(), sentence);
    }
}

/// They are stored and shown.
#[test]
fn every_decision_on_a_worker_has_its_sentence() {
    let crash_loop = CrashLoop { id: id(), restarts: 3, within: SignedDuration::from_mins(5) };
    expect([
        (WorkerDecision::Found { id: id(), slot: 2, attempt: 7 }, "Found i-1 in slot 2 (attempt 7)."),
        (WorkerDecision::Serves { who: who(), after: MINUTES }, "i-1 serves, 180 s after its launch."),
        (
            WorkerDecision::Serves { who: Who::LaunchInSlot(2), after: -MINUTES },
            "the launch in slot 2 serves, 0 s after its launch.",
        ),
        (
            WorkerDecision::BootFailed { id: id(), within: MINUTES },
            "Gave up i-1: it did not answer within 180 s of its launch.",
        ),
        (
            WorkerDecision::BootKept { id: id(), within: MINUTES },
            "i-1 did not answer within 180 s of its launch, but is not terminated yet: no worker was heard, so the \
             fault may be the prober's.",
        ),
        (WorkerDecision::SubnetGone { who: who() }, "Gave up i-1: its subnet does not exist any more."),
        (
            WorkerDecision::Unseen { who: who(), during: MINUTES },
            "Gave up i-1: EC2 has not shown it for 3 min.",
        ),
        (
            WorkerDecision::Unresolved { who: Who::LaunchInSlot(2) },
            "EC2 has not said whether the launch in slot 2 took place; another slot takes over for now.",
        ),
        (
            WorkerDecision::LaunchNotNeeded { slot: 2 },
            "The launch in slot 2 is not needed any more: enough workers serve.",
        ),
        (
            WorkerDecision::SilentOnce { id: id() },
            "i-1 did not answer in time; after one more silent tick it is replaced.",
        ),
        (WorkerDecision::AnswersAgain { who: who() }, "i-1 answers again."),
        (
            WorkerDecision::Dead { who: who(), brake: TerminationBrake::Velocity },
            "i-1 is dead, but not terminated yet: enough were terminated just now.",
        ),
        (
            WorkerDecision::Terminating { who: who(), cause: EndCause::Health },
            "Terminating i-1: it does not answer, and others do.",
        ),
        (
            WorkerDecision::Terminating { who: who(), cause: EndCause::Room { refused: MINUTES } },
            "Terminating i-1: it does not answer, and EC2 has refused its replacement for 3 min.",
        ),
        (
            WorkerDecision::Terminating { who: who(), cause: EndCause::Boot },
            "Terminating i-1: it never answered, and workers are heard.",
        ),
        (WorkerDecision::TakenBack { id: id() }, "i-1 answers after all and is not terminated."),
        (
            WorkerDecision::ZoneSpared { zone: y(), during: MINUTES },
            "Most workers in y are silent while others answer: no worker there is terminated for 3 min.",
        ),
        (WorkerDecision::KeepsCrashing(crash_loop), "i-1 keeps crashing: 3 restarts were seen within 5 min."),
        (
            WorkerDecision::CrashingReplaced { who: who() },
            "i-1 is to be replaced, because it keeps crashing.",
        ),
        (
            WorkerDecision::CrashingRemoved { who: who() },
            "Removing i-1: it keeps crashing, and others answer.",
        ),
        (WorkerDecision::Lost { id: id(), how: Loss::Stopped }, "Lost i-1: it was stopped, not by us."),
        (WorkerDecision::Lost { id: id(), how: Loss::Terminated }, "Lost i-1: it was terminated, not by us."),
        (
            WorkerDecision::Removing { who: who(), why: LeavingReason::Surplus, desired: count(3) },
            "Removing i-1: more workers than desired (3 are desired).",
        ),
        (
            WorkerDecision::Drained { id: id(), why: LeavingReason::Replaced },
            "Terminating i-1: it is drained (a newer release serves).",
        ),
        (WorkerDecision::Adopted { id: id(), slot: 2 }, "Adopted i-1 into slot 2."),
        (WorkerDecision::Unknown { id: id() }, "Removing i-1: it belongs to no slot."),
    ]);
}

#[test]
fn every_decision_on_a_load_balancer_has_its_sentence() {
    let crash_loop = CrashLoop { id: id(), restarts: 3, within: SignedDuration::from_secs(90) };
    let moving = |cause| BalancerDecision::Moving { to: id(), cause };
    let launching = |cause| BalancerDecision::Launching { attempt: 7, cause };
    let dismissed = |why| BalancerDecision::Dismissed { id: id(), why };
    expect([
        (BalancerDecision::HasAddress { id: id() }, "i-1 has the public address."),
        (BalancerDecision::LostAddress { id: id() }, "The load balancer i-1 has lost the address."),
        (
            BalancerDecision::KeepsCrashing(crash_loop),
            "i-1 keeps crashing: 3 restarts were seen within 90 s.",
        ),
        (moving(MoveCause::Renewal), "Moving the public address to i-1: it answers, and is as released."),
        (
            moving(MoveCause::Fault(HolderFault::Silent)),
            "Moving the public address to i-1: it answers, and of the holder: it was silent twice.",
        ),
        (
            launching(LaunchCause::Renewal),
            "Launching a load balancer (attempt 7): the serving one is not as released.",
        ),
        (
            launching(LaunchCause::Fault(HolderFault::NoHolder)),
            "Launching a load balancer (attempt 7): no instance has the address.",
        ),
        (BalancerDecision::Found { id: id() }, "Found i-1, launched to be the load balancer."),
        (BalancerDecision::Adopted { id: id() }, "i-1 boots and is to be the load balancer."),
        (
            BalancerDecision::Lost { who: who() },
            "Lost i-1 before it had the address: it was terminated, not by us.",
        ),
        (
            BalancerDecision::BootFailed { who: Who::LaunchOfBalancer, within: MINUTES },
            "Gave up the launch of a load balancer: it did not answer for 180 s.",
        ),
        (
            BalancerDecision::ZoneUnreachable { who: Who::LaunchOfBalancer, zone: y() },
            "Gave up the launch of a load balancer: EC2 does not answer for y.",
        ),
        (dismissed(Dismissal::HolderAnswers), "Removing i-1: the load balancer answers again."),
        (dismissed(Dismissal::NotAsReleased), "Removing i-1: it is not as released."),
        (dismissed(Dismissal::AnotherAnswers), "Removing i-1: another one answers already."),
        (
            BalancerDecision::WithoutAddress { id: id() },
            "Removing i-1: it is a load balancer without the address.",
        ),
        (BalancerDecision::WithoutPlace { id: id() }, "Removing i-1: the release has no place for it."),
    ]);
}

#[test]
fn every_outcome_of_a_launch_has_its_sentence() {
    let (worker, balancer) = (Role::Worker, Role::LoadBalancer);
    expect([
        (
            LaunchDecision::Launched { id: id(), role: worker, slot: 2, attempt: 7 },
            "Launched i-1 in slot 2 (attempt 7).",
        ),
        (
            LaunchDecision::UsedByHolder { id: id(), role: balancer, slot: 0, attempt: 7 },
            "Attempt 7 of the load balancer's place is used up: it is i-1, which has the address.",
        ),
        (
            LaunchDecision::UsedUp { role: balancer, slot: 1, attempt: 7, why: x() },
            "Attempt 7 of the place of load balancer 2 is used up: x.",
        ),
        (
            LaunchDecision::NoCapacity { role: worker, slot: 2, subnet: y(), why: x() },
            "No capacity in y for slot 2: x; another zone is next.",
        ),
        (
            LaunchDecision::NotOffered { role: worker, slot: 2, subnet: y(), why: x() },
            "y does not offer what slot 2 needs: x",
        ),
        (
            LaunchDecision::DefinitionRefused { role: balancer, release: y(), why: x() },
            "EC2 refuses to launch a new load balancer of y: x",
        ),
        (LaunchDecision::Refused { role: worker, why: x() }, "EC2 refuses to launch a new worker: x"),
        (LaunchDecision::LaunchesAgain { refusals: 1 }, "EC2 launches again; it refused once."),
        (LaunchDecision::LaunchesAgain { refusals: 4 }, "EC2 launches again; it refused 4 times."),
    ]);
}

#[test]
fn every_decision_on_a_document_has_its_sentence() {
    expect([
        (
            ReleaseDecision::Unread { why: x() },
            "release.json cannot be read, so the last release stays in force: x.",
        ),
        (ReleaseDecision::Proven { release: y() }, "Release y has proved itself."),
        (
            ReleaseDecision::StopsFirst { release: y() },
            "The rollout of release y goes on by stopping one worker first: the account has no room for an extra \
             one.",
        ),
    ]);
    expect([
        (CountDecision::Changed { from: Some(count(3)), to: count(4) }, "Desired count changed from 3 to 4."),
        (CountDecision::Changed { from: None, to: count(4) }, "Desired count changed from nothing to 4."),
        (CountDecision::FromRegistry { desired: count(3) }, "Desired count 3 is taken from the registry."),
        (CountDecision::Ignored { notice: x() }, "x."),
    ]);
    expect([
        (
            StateDecision::BeganEmpty { why: x() },
            "state.json could not be parsed (x): the state began empty.",
        ),
        (
            StateDecision::TimesReset { times: 2 },
            "2 times in state.json lay in the future and were reset to now.",
        ),
        (
            StateDecision::NumbersDropped { numbers: 2 },
            "2 numbers in state.json are too high and were dropped.",
        ),
    ]);
}

#[test]
fn changes_of_the_count_are_never_counted_as_one_event() {
    let mut memory = Memory::default();
    let record = |decision: Decision, memory: &mut Memory| decision.record(memory, Timestamp::UNIX_EPOCH);
    for number in 1..4 {
        let change = CountDecision::Changed { from: Some(count(number)), to: count(number + 1) };
        assert_eq!(record(change.into(), &mut memory), 1);
    }
    for (slot, news) in [(1, 1), (2, 0)] {
        assert_eq!(record(WorkerDecision::LaunchNotNeeded { slot }.into(), &mut memory), news);
    }
    assert_eq!(memory.events.len(), 4);
}
