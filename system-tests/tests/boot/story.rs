//! Shows of each role: it serves under its hardened unit, comes back from a kill, ends in order at power-off,
//! and never runs a program other than the deployed one.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::blocking::{Body, Client};
use reqwest::header::{HeaderMap, HeaderValue};

use crate::cloud::{Artifact, Place, release, user_data};
use crate::limits::Limits;
use crate::machine::{Machine, Seed};
use crate::support::{Cloud, program, say, text};
use crate::wait;

const STACK: &str = "boot";

/// systemd, cloud-init, the download and the start; seconds, on a machine that is not busy.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// The bound: a quarter of a second until systemd starts it again, the rest for the start.
const RECOVERY: Duration = Duration::from_secs(2);
const KILLS: usize = 5;

/// `LimitNOFILE` of the unit.
const OPEN_FILES: u64 = 1_048_576;

/// Requests that are in flight when the power goes.
const IN_FLIGHT: usize = 4;

const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Returns the bytes sent to this address that the listener has not read: those on their way, and those in
/// its sockets.
fn unread(address: SocketAddrV4) -> u64 {
    let bytes = u32::from_le_bytes(address.ip().octets());
    let wanted = format!("{bytes:08X}:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let queued = |line: &str| {
        let [_, local, remote, _, queues] = line.split_whitespace().take(5).collect::<Vec<_>>()[..] else {
            return None;
        };
        let (to_send, to_read) = queues.split_once(':')?;
        let queue = if local == wanted { to_read } else { to_send };
        let is_it = local == wanted || remote == wanted;
        u64::from_str_radix(queue, 16).ok().filter(|_| is_it)
    };
    table.lines().skip(1).filter_map(queued).sum()
}

/// A file in S3 in place of the program; it must never run.
const IMPOSTOR: &str = "#!/bin/sh\necho 'the impostor runs'\nexec sleep 1000\n";

pub(crate) fn tell(cloud: &Cloud, root: &Path) {
    let programs = stripped(cloud);
    cloud.must(STACK, &["deploy", "--artifacts", &programs, "--workers", "1"]);
    let release = release(cloud, STACK);
    let (lb_spec, worker_spec) = (&release["balancer"]["instance"], &release["worker"]);
    let lb_place = Place::take(cloud, lb_spec);
    let people = people(lb_place.address);
    for (role, program, port, spec, place) in [
        // A worker accepts only the load balancers, so the clients send from the address of one.
        ("worker", "ec2-worker", 8080, worker_spec, Place::take(cloud, worker_spec)),
        ("lb", "ec2-lb", 5000, lb_spec, lb_place),
    ] {
        let user_data = user_data(cloud, STACK, role);
        assert_eq!(spec["user_data"].as_str(), Some(user_data.as_str()), "EC2 and the release differ");
        assert!(!user_data.contains(&cloud.token(STACK)), "the user data holds the admin token");
        let url = format!("http://{}:{port}", place.address);
        let role = Role { cloud, root, role, program, place, user_data, url, people: &people };
        role.serves_recovers_and_ends();
        role.refuses_an_impostor();
        role.fits_into_a_small_machine();
    }
}

/// Returns the programs without symbols, as in a release: each start reads them whole, and half of a debug
/// build is symbols.
fn stripped(cloud: &Cloud) -> String {
    let directory = cloud.dir.path().join("programs");
    std::fs::create_dir_all(&directory).expect("writable");
    for name in ["ec2-worker", "ec2-lb", "reconciler"] {
        let strip = Command::new("strip").arg("-o").arg(directory.join(name)).arg(program(name)).output();
        let output = strip.expect("strip runs; it comes with the C compiler");
        assert!(output.status.success(), "strip {name}: {}", text(&output));
    }
    directory.to_string_lossy().into_owned()
}

/// Makes clients at an address that workers trust, which name the client's address as a load balancer does; a
/// load balancer itself ignores that.
fn people(from: Ipv4Addr) -> Client {
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
    Client::builder()
        .default_headers(headers)
        .local_address(std::net::IpAddr::from(from))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client")
}

pub(crate) struct Role<'a> {
    cloud: &'a Cloud,
    root: &'a Path,
    pub(crate) role: &'static str,
    program: &'static str,
    place: Place,
    user_data: String,
    pub(crate) url: String,
    pub(crate) people: &'a Client,
}

impl Role<'_> {
    fn serves_recovers_and_ends(&self) {
        let power_on = Instant::now();
        let mut machine = self.boot();
        self.answers(&machine, BOOT_DEADLINE);
        self.say("answers", power_on.elapsed(), "after power-on");
        self.says_how_it_boots(&machine);
        self.is_hardened(&machine);
        self.people_sign_up_and_in();
        self.comes_back_from_a_kill(&machine);
        self.ends_in_order(&mut machine);
    }

    fn refuses_an_impostor(&self) {
        let artifact = Artifact::of(self.cloud, STACK, &self.user_data);
        artifact.replace(IMPOSTOR);
        let power_on = Instant::now();
        let mut machine = self.boot();
        let refusal = format!("{} does not have the checksum", self.program);
        wait::until("it refuses the impostor, more than once", BOOT_DEADLINE, || {
            let console = machine.console();
            if console.matches(&refusal).count() > 1 { Ok(()) } else { Err(console) }
        });
        self.say(
            "refuses an impostor twice, and says so on the console,",
            power_on.elapsed(),
            "after power-on",
        );
        assert!(self.asked().is_err(), "something answers in place of the program");
        artifact.put_back();
        let put_back = Instant::now();
        self.answers(&machine, BOOT_DEADLINE);
        self.say("answers", put_back.elapsed(), "after the right program is there again");
        assert!(!machine.console().contains("the impostor runs"), "{}", machine.console());
        self.ends_in_order(&mut machine);
    }

    fn boot(&self) -> Machine {
        self.boot_within(None)
    }

    pub(crate) fn boot_within(&self, limits: Option<Limits>) -> Machine {
        let environment = self.place.environment(self.cloud);
        let seed = Seed { instance: &self.place.instance, user_data: &self.user_data, environment };
        Machine::boot(self.root, &seed, limits)
    }

    pub(crate) fn unit(&self) -> String {
        format!("{}.service", self.program)
    }

    /// The load balancer passes the question on to a worker, so this is a request through it.
    pub(crate) fn asked(&self) -> Result<(), String> {
        let answer = self.people.get(format!("{}/healthcheck", self.url)).send();
        match answer.map(|answer| answer.status()) {
            Ok(status) if status == 200 => Ok(()),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    pub(crate) fn answers(&self, machine: &Machine, within: Duration) -> Duration {
        let look = || self.asked().map_err(|why| format!("{why}; console: {}", machine.console()));
        wait::until("it answers", within, look).1
    }

    /// The log that an operator without ssh reads.
    fn says_how_it_boots(&self, machine: &Machine) {
        let console = machine.console();
        for line in ["vigia: fetching", "vigia: the checksum fits; starting"] {
            assert!(console.contains(&format!("{line} {}", self.program)), "no `{line}` in {console}");
        }
    }

    fn is_hardened(&self, machine: &Machine) {
        let pid = machine.main_process(&self.unit()).expect("it runs");
        let read = |file: &str| machine.run(&["cat", &format!("/proc/{pid}/{file}")]);
        let status = read("status");
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        assert_eq!(field("NoNewPrivs:"), Some("1"), "{status}");
        assert_eq!(field("Seccomp:"), Some("2"), "{status}");
        assert_eq!(field("CapBnd:").map(|set| set.trim_matches('0')), Some(""), "{status}");
        assert!(field("Uid:").is_some_and(|ids| !ids.starts_with("0\t")), "{status}");
        assert_eq!(open_files(&read("limits")), Some(most_open_files()), "{status}");
        let judged = machine.run(&["systemd-analyze", "security", "--no-pager", &self.unit()]);
        let score = judged.lines().find_map(|line| line.split_once("Overall exposure level for "));
        self.tell(&format!("exposure of {}", score.expect("systemd gives a score").1));
    }

    /// Through the unit's sandbox: hashes, secrets and users from S3, a cookie.
    fn people_sign_up_and_in(&self) {
        let since = Instant::now();
        let user = format!("{}/correct-horse-battery", self.role);
        let signed_up = self.people.post(format!("{}/signup/{user}", self.url)).send().expect("an answer");
        assert_eq!(signed_up.status(), 201);
        let signed_in = self.people.get(format!("{}/signin/{user}", self.url)).send().expect("an answer");
        assert_eq!(signed_in.status(), 303);
        self.say("signs up and in through S3 in", since.elapsed(), "");
    }

    fn comes_back_from_a_kill(&self, machine: &Machine) {
        let mut took: Vec<Duration> = (0..KILLS)
            .map(|_| {
                let before = machine.main_process(&self.unit()).expect("it runs");
                let killed = Instant::now();
                machine.run(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", &self.unit()]);
                self.answers(machine, BOOT_DEADLINE);
                let back = killed.elapsed();
                assert_ne!(machine.main_process(&self.unit()), Some(before), "it was not killed");
                back
            })
            .collect();
        took.sort();
        let (first, last) = (took[0].as_secs_f64(), took[KILLS - 1].as_secs_f64());
        self.tell(&format!("answers again {first:.2} to {last:.2} s after each of {KILLS} kill -9"));
        assert!(took[KILLS - 1] <= RECOVERY, "not back within {RECOVERY:?}: {took:?}");
    }

    fn ends_in_order(&self, machine: &mut Machine) {
        let asked_to_stop = |console: String| console.matches("asked to stop by SIGTERM").count();
        assert_eq!(asked_to_stop(machine.console()), 0, "{}", machine.console());
        let flights: Vec<Flight> = (0..IN_FLIGHT).map(|_| self.take_off()).collect();
        let pressed = Instant::now();
        machine.press_power_button();
        wait::until("it is asked to stop", STOP_DEADLINE, || match asked_to_stop(machine.console()) {
            0 => Err(machine.console()),
            _ => Ok(()),
        });
        let answers: Vec<_> = flights.into_iter().map(Flight::land).collect();
        assert!(answers.iter().all(|answer| *answer == Ok(303)), "in flight at power-off: {answers:?}");
        let status = machine.ended();
        let off = pressed.elapsed();
        assert!(status.success(), "the machine ended with {status}: {}", machine.console());
        let ended = format!("vigia: {} ended: success exited 0", self.program);
        assert!(machine.console().contains(&ended), "no `{ended}` in {}", machine.console());
        let journal = machine.journal();
        assert!(journal.contains(&format!("{}: Deactivated successfully", self.unit())), "{journal}");
        assert!(!journal.contains("timed out"), "{journal}");
        self.say(
            &format!("is off, and {IN_FLIGHT} requests in flight were answered,"),
            off,
            "after the button",
        );
    }

    /// Starts a sign-in whose second half of the body is still to come.
    fn take_off(&self) -> Flight {
        let text = format!(r#"{{"login":"{}","password":"correct-horse-battery"}}"#, self.role);
        let (first, rest) = text.split_at(text.len() / 2);
        let (go_on, gate) = channel();
        let (sent, first_is_sent) = channel();
        let length = text.len();
        let body = Halves {
            first: std::io::Cursor::new(first.to_owned()),
            rest: std::io::Cursor::new(rest.to_owned()),
            sent,
            gate: Some(gate),
        };
        let request = self.people.post(format!("{}/signin", self.url));
        let request = request
            .header("content-type", "application/json")
            .body(Body::sized(body, u64::try_from(length).expect("a short text")));
        let thread = std::thread::spawn(move || {
            request.send().map(|answer| answer.status().as_u16()).map_err(|error| format!("{error:?}"))
        });
        first_is_sent.recv_timeout(STOP_DEADLINE).expect("the first half is sent");
        let address = self.url.trim_start_matches("http://").parse().expect("an address of IPv4");
        wait::until("the request is read", STOP_DEADLINE, || match unread(address) {
            0 => Ok(()),
            bytes => Err(format!("{bytes} bytes")),
        });
        Flight { go_on, thread }
    }

    pub(crate) fn say(&self, what: &str, time: Duration, since: &str) {
        self.tell(&format!("{what} {:.1} s {since}", time.as_secs_f64()));
    }

    pub(crate) fn tell(&self, what: &str) {
        say(&format!("{}: {}", self.program, what.trim_end()));
    }
}

/// The hard limit of open files in `/proc/<pid>/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(4)?.parse().ok()
}

/// Returns the unit's limit, or the highest that this machine allows even root.
fn most_open_files() -> u64 {
    let may_raise =
        Command::new("prlimit").args([&format!("--nofile={OPEN_FILES}:{OPEN_FILES}"), "true"]).output();
    if may_raise.is_ok_and(|output| output.status.success()) {
        return OPEN_FILES;
    }
    let own = std::fs::read_to_string("/proc/self/limits").expect("Linux");
    let most = open_files(&own).expect("a hard limit").min(OPEN_FILES);
    say(&format!(
        "this machine allows no process more than {most} open files; the unit asks for {OPEN_FILES}"
    ));
    most
}

struct Flight {
    go_on: Sender<()>,
    thread: JoinHandle<Result<u16, String>>,
}

impl Flight {
    fn land(self) -> Result<u16, String> {
        self.go_on.send(()).ok();
        self.thread.join().expect("the request does not panic")
    }
}

/// A body whose second half waits.
struct Halves {
    first: std::io::Cursor<String>,
    rest: std::io::Cursor<String>,
    sent: Sender<()>,
    gate: Option<Receiver<()>>,
}

impl Read for Halves {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.first.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        if let Some(gate) = self.gate.take() {
            // A listener that reads again has passed on the bytes that it had.
            self.sent.send(()).ok();
            gate.recv_timeout(STOP_DEADLINE * 2).ok();
        }
        self.rest.read(buffer)
    }
}
