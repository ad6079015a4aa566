//! The cheapest machine: a tenth of a core, as a t4g.nano or t3.nano without credits has, and less memory
//! than its 512 MiB.
//!
//! The limit covers everything that the kernel charges to the machine: its processes, including systemd and
//! cloud-init, files in memory, and the kernel's own memory for sockets and processes. Debian stands in for
//! Amazon Linux, which runs more daemons, and the kernel itself takes some fifty MiB of the 512 before it
//! counts. So this shows that Vigia's programs and their boot leave room, not that an image of Amazon does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::limits::{Limits, Memory};
use crate::machine::Machine;
use crate::story::Role;

/// `MEMORY_MIB` leaves 112 MiB of a nano for the kernel and for Amazon Linux's additional daemons.
const SMALL: Limits = Limits { percent_of_a_core: 10, memory_mib: MEMORY_MIB };
const MEMORY_MIB: u64 = 400;

/// systemd, cloud-init and the download take some ten seconds of a core.
const BOOT_DEADLINE: Duration = Duration::from_secs(400);

/// A flood of sign-ins, thirty times what a tenth of a core can check.
const PEOPLE: usize = 32;
const FLOOD: Duration = Duration::from_secs(15);

/// Connections that are held open, each with half a request, from this many addresses.
const CONNECTIONS: usize = 5_000;
const SOURCES: usize = 8;

impl Role<'_> {
    pub(crate) fn fits_into_a_small_machine(&self) {
        let power_on = Instant::now();
        let mut machine = self.boot_within(Some(SMALL));
        self.answers(&machine, BOOT_DEADLINE);
        self.say("answers", power_on.elapsed(), "after power-on with a tenth of a core");
        self.report("booted", &machine.memory());
        let process = machine.main_process(&self.unit());
        let full = match self.role {
            "lb" => {
                let held = self.hold_connections();
                self.tell(&format!("holds {} connections", held.len()));
                self.answers(&machine, BOOT_DEADLINE);
                machine.memory()
            }
            _ => self.flood_with_sign_ins(&machine),
        };
        self.report("under full load", &full);
        self.answers(&machine, BOOT_DEADLINE);
        assert_eq!(machine.main_process(&self.unit()), process, "the program was started again");
        machine.press_power_button();
        assert!(machine.ended().success(), "{}", machine.console());
    }

    fn report(&self, when: &str, memory: &Memory) {
        let Memory { charged, peak, needed, kernel, killed } = memory;
        self.tell(&format!(
            "{when}: the machine needs {needed} MiB, {kernel} of them the kernel's; with files that could be \
             forgotten {charged}, at most {peak} of {MEMORY_MIB}"
        ));
        assert_eq!(*killed, 0, "processes were killed for want of memory");
        assert!(needed <= &MEMORY_MIB, "more than {MEMORY_MIB} MiB are needed");
    }

    /// The worker refuses at once, with an error, the sign-ins that it cannot check. Returns the most memory
    /// that it needed during the flood.
    fn flood_with_sign_ins(&self, machine: &Machine) -> Memory {
        let (answers, memory) = self.sign_in_while(|| {
            let (until, mut most) = (Instant::now() + FLOOD, machine.memory());
            while Instant::now() < until {
                let now = machine.memory();
                most = if now.needed > most.needed { now } else { most };
                std::thread::sleep(Duration::from_millis(100));
            }
            most
        });
        let count = |status: u16| answers.get(&status).copied().unwrap_or(0);
        self.tell(&format!("sign-ins by status: {answers:?}"));
        assert!(count(303) > 0, "no request is let in: {answers:?}");
        assert!(count(503) > 0, "nothing is shed: {answers:?}");
        let odd: Vec<u16> = answers.keys().copied().filter(|status| ![303, 503].contains(status)).collect();
        assert!(odd.is_empty(), "neither let in nor shed: {answers:?}");
        memory
    }

    fn sign_in_while<T>(&self, watch: impl FnOnce() -> T) -> (BTreeMap<u16, usize>, T) {
        let (url, is_over) = (format!("{}/signin", self.url), AtomicBool::new(false));
        let body = format!(r#"{{"login":"{}","password":"correct-horse-battery"}}"#, self.role);
        // Each request has an address of its own, because requests from one address are limited before they need memory.
        let client = AtomicU32::new(u32::from(Ipv4Addr::new(198, 18, 0, 1)));
        std::thread::scope(|scope| {
            let ask = || {
                let mut answers = BTreeMap::<u16, usize>::new();
                while !is_over.load(Ordering::Relaxed) {
                    let from = Ipv4Addr::from(client.fetch_add(1, Ordering::Relaxed)).to_string();
                    let request = self.people.post(&url).header("content-type", "application/json");
                    let request = request.header("x-forwarded-for", from);
                    // 0 stands for no answer.
                    let status =
                        request.body(body.clone()).send().map_or(0, |answer| answer.status().as_u16());
                    *answers.entry(status).or_default() += 1;
                }
                answers
            };
            let people: Vec<_> = (0..PEOPLE).map(|_| scope.spawn(ask)).collect();
            let over = Over(&is_over);
            let seen = watch();
            drop(over);
            let mut all = BTreeMap::new();
            for answers in people.into_iter().map(|one| one.join().expect("it does not panic")) {
                for (status, number) in answers {
                    *all.entry(status).or_default() += number;
                }
            }
            (all, seen)
        })
    }

    fn hold_connections(&self) -> Vec<Socket> {
        let address: SocketAddr = self.url.trim_start_matches("http://").parse().expect("an address");
        let source = |number: usize| {
            let last = u8::try_from(number % SOURCES + 1).expect("a small number");
            SocketAddr::from((Ipv4Addr::new(127, 66, 0, last), 0))
        };
        let connect = |number: usize| -> std::io::Result<Socket> {
            let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&source(number).into())?;
            socket.connect(&address.into())?;
            socket.write_all(b"GET /healthcheck HTTP/1.1\r\nHost: boot\r\nX-Slow: ")?;
            Ok(socket)
        };
        (0..CONNECTIONS).map(connect).collect::<Result<_, _>>().expect("connections")
    }
}

/// Stops the clients, however the watch ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
